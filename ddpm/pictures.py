"""Images as files: grids and strips, and PNGs with the same bytes for the same pixels."""

from pathlib import Path

import numpy as np
from PIL import Image


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
