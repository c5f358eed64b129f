"""Many images for a score: in batches, shared by processes, kept in a checkpoint on the way; and pictures of them."""

import json
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from ddpm.config import SampleConfig
from ddpm.data.pictures import enlarge, grid, save_png
from ddpm.model.model_file import WEIGHTS_FILE
from ddpm.model.trained import AUTO_BATCH, DiffusionModel
from ddpm.runtime import signals
from ddpm.runtime.arrays import save_array
from ddpm.runtime.checkpoint import Checkpoint
from ddpm.runtime.checksums import checksum
from ddpm.runtime.distributed import Group
from ddpm.runtime.errors import MAKE_ROOM, memory_for
from ddpm.runtime.paths import MODELS, REPORTS, SAMPLES
from ddpm.runtime.progress import progress_bar

GRID_IMAGES = 64
STRIP_IMAGES = 6
STRIP_FRAMES = 9


def batch_images(model: DiffusionModel, config: SampleConfig) -> int:
    """Images in a batch; they decide no image, but which of them are in a checkpoint."""
    return AUTO_BATCH[model.device.type] if config.batch_size == "auto" else config.batch_size


def generate(
    model: DiffusionModel,
    config: SampleConfig,
    size: int,
    options: dict[str, Any],
    checkpoint: Checkpoint,
    group: Group,
) -> list[np.ndarray]:
    """Generate this process's share of the images, from the first or from the checkpoint: batches (B, H, W, 3) uint8.

    The same images are generated together however many processes there are, so that the result has the same bytes.
    """
    mine = range(group.rank * size, config.n, group.size * size)
    batches: list[np.ndarray] = []
    if state := checkpoint.load():
        batches = [batch.numpy() for batch in state["batches"]]
        print(f"Going on from the checkpoint after {sum(map(len, batches))} images.")

    def keep() -> None:
        checkpoint.save({"batches": [torch.from_numpy(batch) for batch in batches]})

    total = sum(min(size, config.n - first) for first in mine)
    try:
        with progress_bar(total, "sample", initial=sum(map(len, batches)), disable=group.rank > 0) as bar:
            for first in mine[len(batches) :]:
                count = min(size, config.n - first)
                with memory_for(*needs(config)):
                    batches.append(model.sample(count, first=first, batch_size=config.batch_size, **options))
                bar.update(count)
                if checkpoint.due() or first == mine[-1]:
                    keep()
    except SystemExit:  # by a signal, in the middle of a batch, which may take minutes
        keep()
        if group.rank == 0 and (number := signals.asked()):
            signals.end(number, f"{sum(map(len, batches))} images are kept")
        raise
    return batches


def in_order(batches: list[list[np.ndarray]]) -> np.ndarray:
    """All images, (N, H, W, 3) uint8, of the batches of each process, which had every size-th."""
    return np.concatenate([batch for turn in zip_longest(*batches, fillvalue=[]) for batch in turn if len(batch)])


def needs(config: SampleConfig) -> tuple[str, str]:
    """What may not fit into the memory, and what to do then."""
    size = 1 if config.batch_size == "auto" else min(config.batch_size, config.n)  # auto has come down to one
    if size == 1:
        return "sample.batch_size: even a single image", MAKE_ROOM
    remedy = f"set it to {size // 2}, or to auto, which finds what fits"
    return f"sample.batch_size: a batch of {size} images", remedy


def save(images: np.ndarray, model: DiffusionModel, options: dict[str, Any]) -> None:
    """Write all images, what they come from, and the pictures."""
    SAMPLES.mkdir(parents=True, exist_ok=True)
    save_array(SAMPLES / "samples.npy", images)
    # The scores take this over, so that they can be distinguished from those of another model.
    origin = {"model_sha256": checksum(MODELS / WEIGHTS_FILE), "options": options}
    (SAMPLES / "origin.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    save_png(grid(enlarge(images[:GRID_IMAGES]), columns=8), REPORTS / "samples" / "grid.png")
    save_png(reverse_strip(model, options), REPORTS / "samples" / "reverse.png")


def reverse_strip(model: DiffusionModel, options: dict[str, Any]) -> np.ndarray:
    """Show the first images on their way from noise (left) to flower (right), a row each."""
    frames = model.frames(range(STRIP_IMAGES), STRIP_FRAMES, **options)
    rows = frames.swapaxes(0, 1).reshape(-1, *frames.shape[2:])
    return grid(enlarge(rows), columns=len(frames))
