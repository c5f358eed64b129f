"""What MLflow missed: a folder per process below .unsent/, kept until `sync` has sent it."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from ddpm.data.pictures import save_png
from ddpm.runtime.copies import copy_files
from ddpm.runtime.errors import InputError
from ddpm.runtime.locks import lock
from ddpm.runtime.paths import main_root
from ddpm.tracking.store import Claim, Entry, Work

LOG = "log.jsonl"  # first the work and its claim, then an entry a line; files that entries name lie beside it


class Unsent:
    """The folder of one process, which holds a lock on its log for as long as it may write."""

    def __init__(self, work: Work, claim: Claim | None) -> None:
        """Create the folder; `claim` is the run, if it was found before the store failed.

        Raises:
            OSError: no room for it; nothing is left of it.
        """
        self.folder = _new_folder()
        self._files = 0
        try:
            # Others see the log when it is locked and has its first line.
            aside = self.folder / "log.tmp"
            self._log = aside.open("w", encoding="utf-8")
            lock(self._log)
            self._write({"work": asdict(work), "claim": asdict(claim) if claim else None})
            aside.rename(self.folder / LOG)
        except OSError:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def add(self, entry: Entry) -> None:
        """Keep an entry, and copies of the files that it names, which the next experiment replaces.

        Raises:
            OSError: no room for them.
        """
        match entry:
            case {"image": image}:
                self._files += 1
                name = f"{self._files}.png"
                save_png(image, self.folder / name)
                entry = {**entry, "image": name}
            case {"artifacts": path}:
                self._files += 1
                name = _copy(Path(path), self.folder / str(self._files))
                entry = {**entry, "artifacts": f"{self._files}/{name}"}
        self._write(entry)

    def close(self) -> None:
        """Release the lock."""
        with suppress(OSError):  # what a full disk did not take is tried once more here
            self._log.close()

    def _write(self, line: Entry) -> None:
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()


def pending() -> list[Path]:
    """The folders of all that is unsent, oldest first."""
    return sorted(log.parent for log in (main_root() / ".unsent").glob(f"*/{LOG}"))


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Work, Claim | None, list[Entry]] | None]:
    """Read a folder, and delete it when the block ends without an error; None if its process is still at it.

    Raises:
        InputError: the folder is damaged, or was written by another version of this package.
    """
    try:
        log = (folder / LOG).open(encoding="utf-8")
    except FileNotFoundError:  # sent by another process since it was listed
        yield None
        return
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; make this folder readable, or delete it") from None
    with log:
        if not lock(log, wait=False) or os.fstat(log.fileno()).st_nlink == 0:  # sent between opening and locking
            yield None
            return
        if not os.access(folder, os.W_OK) or not os.access(folder.parent, os.W_OK):
            raise InputError(f"{folder}: it could be sent, but not deleted afterwards; make it writable, or delete it")
        yield _read(log, folder)
        shutil.rmtree(folder)


def _new_folder() -> Path:
    """Create the next folder; counted, because a clock may be set back between two attempts."""
    parent = main_root() / ".unsent"
    parent.mkdir(exist_ok=True)
    while True:
        number = max((int(path.name) for path in parent.iterdir() if path.name.isdecimal()), default=0) + 1
        with suppress(FileExistsError):  # another process was quicker
            (parent / f"{number:06}").mkdir()
            return parent / f"{number:06}"


def _read(log: TextIO, folder: Path) -> tuple[Work, Claim | None, list[Entry]]:
    try:
        header, *entries = [json.loads(line) for line in log if _is_whole(line)]
        fields = header["work"]
        work = Work(**fields | {"names": tuple(fields["names"])})
        claim = Claim(**header["claim"]) if header["claim"] else None
        return work, claim, [_with_files(entry, folder) for entry in entries]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{folder}: what MLflow missed cannot be read ({error!r}); delete this folder") from None


def _is_whole(line: str) -> bool:
    """Tell a line from the rest of one that was cut off by a kill or a full disk."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _with_files(entry: dict[str, Any], folder: Path) -> Entry:
    match entry:
        case {"image": name}:
            return entry | {"image": np.array(Image.open(folder / name, formats=["PNG"]))}
        case {"artifacts": name}:
            return entry | {"artifacts": str(folder / name)}
    return entry


def _copy(source: Path, folder: Path) -> str:
    """Copy a file, or what is in a folder, into a new folder; returns the name below it by which MLflow takes it."""
    if source.is_dir():
        copy_files(source, folder)
        return ""
    copy_files(source, folder / source.name)
    return source.name
