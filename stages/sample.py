"""Paint the images that will be scored, and the pictures that people look at."""

import numpy as np

from ddpm.config import Config
from ddpm.model import DiffusionModel, load_model
from ddpm.paths import MODELS, REPORTS, SAMPLES
from ddpm.pictures import grid, save_png
from ddpm.pixels import to_uint8
from stages import run

GRID_IMAGES = 64
STRIP_IMAGES = 6
STRIP_FRAMES = 9


def main(config: Config) -> None:
    """Read models/; write data/samples/ and reports/samples/."""
    model = load_model(MODELS, config.device)
    settings = config.sample.model_dump(include={"steps", "sampler", "eta", "variance"})
    images = model.sample(
        config.sample.n, seed=config.seed, batch_size=config.sample.batch_size, progress=True, **settings
    )
    SAMPLES.mkdir(parents=True, exist_ok=True)
    np.save(SAMPLES / "samples.npy", images)
    save_png(grid(images[:GRID_IMAGES], columns=8), REPORTS / "samples" / "grid.png")
    save_png(reverse_strip(model, config.seed, settings), REPORTS / "samples" / "reverse.png")


def reverse_strip(model: DiffusionModel, seed: int, settings: dict[str, object]) -> np.ndarray:
    """Show the first images on their way from noise (left) to flower (right), a row each."""
    frames = [to_uint8(x) for x in model.trajectory(range(STRIP_IMAGES), seed=seed, **settings)]  # type: ignore[arg-type]
    chosen = np.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().astype(int)
    rows = np.stack([frames[index] for index in chosen], axis=1)  # (images, frames, H, W, 3)
    return grid(rows.reshape(-1, *rows.shape[2:]), columns=len(chosen))


if __name__ == "__main__":
    run(main)
