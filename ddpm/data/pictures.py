"""Images as files: grids, and PNGs and GIFs with the same bytes for the same pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

GIF_STEP, GIF_HOLD = 100, 2500  # milliseconds for each frame, and for the last


def grid(images: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """Lay images out in rows on white.

    Args:
        images: (N, H, W, 3) uint8.
        columns: images per row; the last row may be shorter.
        gap: pixels between images.

    Returns:
        (rows * (H + gap) - gap, columns * (W + gap) - gap, 3) uint8.
    """
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def enlarge(images: np.ndarray, side: int = 64) -> np.ndarray:
    """Repeat the pixels of (N, H, W, 3) images a whole number of times, so that small ones are about `side` wide."""
    factor = max(1, side // images.shape[2])
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def save_png(image: np.ndarray, path: Path) -> None:
    """Write (H, W, 3) uint8 as a PNG, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, optimize=True)


def save_gif(frames: Sequence[np.ndarray], path: Path) -> None:
    """Write (H, W, 3) uint8 frames as an endless GIF, the last frame held; the same bytes for the same frames."""
    # A palette for each frame, because the colours of noise are not those of flowers.
    first, *others = [Image.fromarray(frame).quantize(256) for frame in frames]
    milliseconds = [GIF_STEP] * len(others) + [GIF_HOLD]
    first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0)
