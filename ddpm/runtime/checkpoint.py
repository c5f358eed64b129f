"""The state of unfinished work, kept outside DVC's outputs, which DVC deletes before a stage runs."""

import io
import os
import pickle
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from ddpm.runtime.errors import InputError, first_line
from ddpm.runtime.locks import lock
from ddpm.runtime.paths import main_root

SECONDS = 60.0  # between two checkpoints, at least
SHARE = 100  # and at least this many times as long as the last one took to write, so that they cost 1 % at most


class Checkpoint:
    """One file with the newest state of one piece of work, replaced as a whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "state.pt"
        self._due = time.monotonic() + SECONDS

    def load(self) -> dict[str, Any] | None:
        """Read the newest state, with its tensors on the CPU; None if there is none.

        Raises:
            InputError: the file is damaged, or of other work.
        """
        if not self._file.exists():
            return None
        try:
            with zipfile.ZipFile(self._file) as archive:
                if damaged := archive.testzip():  # PyTorch does not compare the checksums that it writes
                    raise ValueError(f"{damaged} is damaged")
            content = torch.load(self._file, map_location="cpu", weights_only=True)
            if content["folder"] != self.folder.name:
                raise ValueError("it belongs to other work")
            return content["state"]
        except Exception as error:  # torch raises a dozen unrelated types on damaged files
            reason = first_line(error)
            if isinstance(error, pickle.UnpicklingError):  # whose advice is to run the code in it
                reason = "it holds something else than numbers"
            raise InputError(
                f"{self._file}: this checkpoint cannot be read ({reason}); delete {self.folder} to start afresh"
            ) from None

    def due(self) -> bool:
        """Return whether it is time for the next `save`."""
        return time.monotonic() >= self._due

    def save(self, state: dict[str, Any]) -> bool:
        """Replace the newest state; a disk that is full costs a warning, and the state before it is kept.

        Returns:
            Whether it was written.
        """
        started = time.monotonic()
        aside = self._file.with_suffix(".tmp")
        try:
            content = io.BytesIO()  # torch.save into a file that is full leaves an error that hides the reason
            torch.save({"folder": self.folder.name, "state": state}, content)
            with aside.open("wb") as stream:
                stream.write(content.getbuffer())
                stream.flush()
                os.fsync(stream.fileno())  # or a power cut could leave the new name on the old disk blocks
            aside.replace(self._file)
            written = True
        except OSError as error:
            written = False
            with suppress(OSError):  # a disk that is read-only by now
                aside.unlink(missing_ok=True)
            print(f"warning: {aside}: no checkpoint could be written ({error.strerror}); going on", file=sys.stderr)
        now = time.monotonic()
        self._due = now + max(SECONDS, SHARE * (now - started))
        return written


@contextmanager
def checkpoint_for(key: str, part: str = "") -> Iterator[Checkpoint]:
    """Open the checkpoint of a piece of work, for this process alone; it waits for another one that is at it.

    The checkpoint outlives the work: its outputs are safe only when DVC has stored them, for which the disk may be too
    full. The next stage calls `discard`.

    Args:
        key: identity of the work (`lineage.stage_key`): other parameters, code or data find another checkpoint.
        part: which share of the work, where several processes have one each.
    """
    folder = main_root() / ".ckpt" / f"{key[:32]}{part}"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as file:
            if not lock(file, wait=False):
                print(f"Another process is at the same work; waiting for its result ({folder}).", file=sys.stderr)
                lock(file)
            if os.fstat(file.fileno()).st_nlink:  # else it was discarded in the meantime
                yield Checkpoint(folder)
                return


def discard(key: str) -> None:
    """Delete the checkpoint of work whose outputs DVC has stored, unless another process is at the same work."""
    for path in (main_root() / ".ckpt").glob(f"{key[:32]}*/lock"):
        with suppress(FileNotFoundError), path.open("r+") as file:
            if lock(file, wait=False):
                shutil.rmtree(path.parent, ignore_errors=True)
