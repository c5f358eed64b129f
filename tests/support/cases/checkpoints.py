"""Checkpoints that are damaged, of other work, or hostile."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from tests.support.cases.case import Case, Place
from tests.support.cases.models import Evil, flip, unharmed


def checkpoint(change: Callable[[Path], object]) -> Callable[[Place], None]:
    """A checkpoint of a training, then changed."""

    def prepare(place: Place) -> None:
        from ddpm.runtime.checkpoint import checkpoint_for

        with checkpoint_for("a" * 64) as kept:
            kept.save({"steps": 3, "weights": torch.arange(1000.0)})
            change(kept.folder / "state.pt")

    return prepare


def flip_a_weight(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(flip(data.find(torch.arange(500.0, 510.0).numpy().tobytes()))(data))


def of_other_work(path: Path) -> None:
    torch.save({"folder": "b" * 32, "state": {"steps": 3}}, path)


CHECKPOINTS = [
    Case(
        "empty",
        checkpoint(lambda path: path.write_bytes(b"")),
        (
            ".ckpt/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/state.pt: this checkpoint cannot be read (File is not a zip "
            "file); delete .ckpt/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa to start afresh"
        ),
        run="checkpoint",
    ),
    Case(
        "cut in half",
        checkpoint(lambda path: os.truncate(path, path.stat().st_size // 2)),
        (
            ".ckpt/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/state.pt: this checkpoint cannot be read (File is not a zip "
            "file); delete .ckpt/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa to start afresh"
        ),
        run="checkpoint",
    ),
    Case(
        "a flipped bit in a weight",
        checkpoint(flip_a_weight),
        (
            ".ckpt/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/state.pt: this checkpoint cannot be read (archive/data/0 is "
            "damaged); delete .ckpt/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa to start afresh"
        ),
        run="checkpoint",
    ),
    Case(
        "a pickle with code in it",
        checkpoint(lambda path: torch.save(Evil(), path)),
        (
            ".ckpt/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/state.pt: this checkpoint cannot be read (it holds something "
            "else than numbers); delete .ckpt/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa to start afresh"
        ),
        run="checkpoint",
        check=unharmed,
    ),
    Case(
        "of other work, copied here",
        checkpoint(of_other_work),
        (
            ".ckpt/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/state.pt: this checkpoint cannot be read (it belongs to other"
            " work); delete .ckpt/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa to start afresh"
        ),
        run="checkpoint",
    ),
]
