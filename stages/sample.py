"""Paint the images that will be scored, and the pictures that people look at."""

import json
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from ddpm.config import Config, SampleConfig
from ddpm.data.pictures import enlarge, grid, save_png
from ddpm.model.model_file import WEIGHTS_FILE
from ddpm.model.trained import AUTO_BATCH, DiffusionModel, load_model
from ddpm.runtime import signals
from ddpm.runtime.arrays import save_array
from ddpm.runtime.checkpoint import Checkpoint, checkpoint_for, discard
from ddpm.runtime.checksums import checksum
from ddpm.runtime.devices import check_device
from ddpm.runtime.distributed import Group, process_group, spread
from ddpm.runtime.errors import MAKE_ROOM, memory_for
from ddpm.runtime.lineage import stage_key
from ddpm.runtime.paths import MODELS, REPORTS, SAMPLES
from ddpm.runtime.progress import progress_bar
from stages import run

GRID_IMAGES = 64
STRIP_IMAGES = 6
STRIP_FRAMES = 9


def main(config: Config) -> None:
    """Read models/; write data/samples/ and reports/samples/."""
    if (train_key := REPORTS / "curves" / "key.txt").exists():
        discard(train_key.read_text(encoding="utf-8").strip())  # DVC has stored the model
    spread("stages.sample", lambda: check(config))
    model = load_model(MODELS, config.device)
    options = config.sample.model_dump(exclude={"n", "batch_size"}) | {"seed": config.seed}
    key = stage_key("sample", config.model_dump(mode="json"))
    # The batch size decides no image, but which of them are in a checkpoint.
    size = AUTO_BATCH[model.device.type] if config.sample.batch_size == "auto" else config.sample.batch_size
    with (
        process_group() as group,
        checkpoint_for(key, f"-{group.rank}-of-{group.size}-by-{size}") as checkpoint,
    ):
        batches = group.gather(paint(model, config.sample, size, options, checkpoint, group))
        if group.rank == 0:
            # Each process had every size-th batch.
            images = np.concatenate(
                [batch for turn in zip_longest(*batches, fillvalue=[]) for batch in turn if len(batch)]
            )
            save(images, model, options)


def check(config: Config) -> None:
    """Refuse what can never be painted with, without a word about the device.

    Raises:
        InputError: see `check_device` and `load_model`.
    """
    check_device(config.device)
    load_model(MODELS, "cpu")


def paint(
    model: DiffusionModel,
    config: SampleConfig,
    size: int,
    options: dict[str, Any],
    checkpoint: Checkpoint,
    group: Group,
) -> list[np.ndarray]:
    """Paint this process's share of the images, from the first or from the checkpoint: batches (B, H, W, 3) uint8.

    The same images are painted together however many processes there are, so that the result has the same bytes.
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
    # The scores take this over, so that they can be told from those of another model.
    origin = {"model_sha256": checksum(MODELS / WEIGHTS_FILE), "options": options}
    (SAMPLES / "origin.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    save_png(grid(enlarge(images[:GRID_IMAGES]), columns=8), REPORTS / "samples" / "grid.png")
    save_png(reverse_strip(model, options), REPORTS / "samples" / "reverse.png")


def reverse_strip(model: DiffusionModel, options: dict[str, Any]) -> np.ndarray:
    """Show the first images on their way from noise (left) to flower (right), a row each."""
    frames = model.frames(range(STRIP_IMAGES), STRIP_FRAMES, **options)
    rows = frames.swapaxes(0, 1).reshape(-1, *frames.shape[2:])
    return grid(enlarge(rows), columns=len(frames))


if __name__ == "__main__":
    run(main)
