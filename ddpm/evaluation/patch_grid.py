"""Whether images show a grid of squares, as those of a network that works on patches may."""

import math

import numpy as np

REACH = 2  # frequencies on either side that count as neighbours
ENOUGH = 1000  # images, with which the figure is steady to about 0.01


def beside_real_images(samples: np.ndarray, real: np.ndarray, patch: int) -> dict[str, float] | None:
    """Measure both sets with `patch_grid`, up to 1000 images of each, evenly spaced: samples, real.

    Args:
        samples: (N, H, W, 3) uint8; may be a memory map, as may the real ones.
        real: (M, H, W, 3) uint8.
        patch: side of the squares that the network works on, pixels.

    Returns:
        None where there is nothing to measure: the network works on pixels, the images are smaller than four squares,
        or those of one set are of one colour each.
    """
    if patch == 1 or samples.shape[1] < 4 * patch:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            name: patch_grid(images[:: math.ceil(len(images) / ENOUGH)], patch)
            for name, images in (("samples", samples), ("real", real))
        }
    return found if all(map(math.isfinite, found.values())) else None


def patch_grid(images: np.ndarray, patch: int) -> float:
    """Compare the energy at the frequency of a grid, 1/p cycles per pixel, with that of the frequencies beside it.

    Horizontal lines, vertical lines and both together (a checkerboard, say) are compared one by one, and the mean of
    the three ratios is taken: about 0.95 for photographs of 64 pixels, many times that for a grid which can be seen.

    Args:
        images: (N, H, W, 3) uint8, not all of one colour.
        patch: side of the squares of the grid, pixels: p.

    Raises:
        ValueError: the sides of the images are no multiples of p, or less than 4p.
    """
    height, width = images.shape[1:3]
    if height % patch or width % patch or min(height, width) < 4 * patch:
        raise ValueError(f"images: found {height} × {width} pixels; choose multiples of {patch}, at least {4 * patch}")
    spectrum = np.zeros((height, width))
    for image in images:  # one by one, because the spectra of all would fill the memory
        spectrum += (np.abs(np.fft.fft2(image, axes=(0, 1))) ** 2).sum(axis=2)
    y, x = height // patch, width // patch
    ratios = []
    for place, directions in (((y, 0), [(1, 0)]), ((0, x), [(0, 1)]), ((y, x), [(1, 0), (0, 1)])):
        steps = [(dy * s, dx * s) for dy, dx in directions for s in range(-REACH, REACH + 1) if s]
        beside = [spectrum[(place[0] + dy) % height, (place[1] + dx) % width] for dy, dx in steps]
        ratios.append(spectrum[place] / np.mean(beside))
    return float(np.mean(ratios))
