"""Paint the images that will be scored, and the pictures that people look at."""

import json
from typing import Any

import numpy as np
import torch

from ddpm.checkpoint import Checkpoint, checkpoint_for, discard
from ddpm.checksums import checksum
from ddpm.config import Config, SampleConfig
from ddpm.lineage import stage_key
from ddpm.model import DiffusionModel, load_model
from ddpm.model_file import WEIGHTS_FILE
from ddpm.paths import MODELS, REPORTS, SAMPLES
from ddpm.pictures import enlarge, grid, save_png
from ddpm.progress import progress_bar
from stages import run

GRID_IMAGES = 64
STRIP_IMAGES = 6
STRIP_FRAMES = 9


def main(config: Config) -> None:
    """Read models/; write data/samples/ and reports/samples/."""
    if (train_key := REPORTS / "curves" / "key.txt").exists():
        discard(train_key.read_text(encoding="utf-8").strip())  # DVC has stored the model
    model = load_model(MODELS, config.device)
    options = config.sample.model_dump(exclude={"n", "batch_size"}) | {"seed": config.seed}
    with checkpoint_for(stage_key("sample", config.model_dump(mode="json"))) as checkpoint:
        images = paint(model, config.sample, options, checkpoint)
        SAMPLES.mkdir(parents=True, exist_ok=True)
        np.save(SAMPLES / "samples.npy", images)
        # The scores take this over, so that they can be told from those of another model.
        origin = {"model_sha256": checksum(MODELS / WEIGHTS_FILE), "options": options}
        (SAMPLES / "origin.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
        save_png(grid(enlarge(images[:GRID_IMAGES]), columns=8), REPORTS / "samples" / "grid.png")
        save_png(reverse_strip(model, options), REPORTS / "samples" / "reverse.png")


def paint(model: DiffusionModel, config: SampleConfig, options: dict[str, Any], checkpoint: Checkpoint) -> np.ndarray:
    """Paint all images, from the first or from the checkpoint: (n, H, W, 3) uint8."""
    images = np.empty((config.n, model.image_size, model.image_size, 3), dtype=np.uint8)
    done = 0
    if state := checkpoint.load():
        done = len(state["images"])
        images[:done] = state["images"].numpy()
        print(f"Going on from the checkpoint after {done} images.")
    with progress_bar(config.n, "sample", initial=done) as bar:
        for batch in model.batches(config.n - done, first=done, batch_size=config.batch_size, **options):
            images[done : done + len(batch)] = batch
            done += len(batch)
            bar.update(len(batch))
            if checkpoint.due() or done == config.n:
                checkpoint.save({"images": torch.from_numpy(images[:done])})
    return images


def reverse_strip(model: DiffusionModel, options: dict[str, Any]) -> np.ndarray:
    """Show the first images on their way from noise (left) to flower (right), a row each."""
    frames = model.frames(range(STRIP_IMAGES), STRIP_FRAMES, **options)
    rows = frames.swapaxes(0, 1).reshape(-1, *frames.shape[2:])
    return grid(enlarge(rows), columns=len(frames))


if __name__ == "__main__":
    run(main)
