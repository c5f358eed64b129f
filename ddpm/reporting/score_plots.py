"""The picture of the fid stage: samples beside the training images that they come closest to."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ddpm.reporting.figures import default_style, save

ROWS = ("sample", "nearest in\nfeatures", "nearest in\npixels")


@default_style()
def save_neighbours(
    samples: np.ndarray, images: np.ndarray, train_rows: np.ndarray, by_features: np.ndarray, path: Path
) -> None:
    """Show samples above their nearest training images, by features and by pixels.

    Args:
        samples: (K, H, W, 3) uint8.
        images: (M, H, W, 3) uint8; may be a memory map.
        train_rows: (N,) int64, which of them trained the model.
        by_features: (K,) int64, which of them are nearest in features.
        path: the PNG to write.
    """
    by_pixels = [nearest_in_pixels(sample, images, train_rows) for sample in samples]
    rows = (samples, images[by_features], by_pixels)
    figure = Figure((1 + 1.1 * len(samples), 3.6), dpi=120, layout="constrained")
    axes = figure.subplots(len(rows), len(samples), squeeze=False)
    for name, line, images in zip(ROWS, axes, rows, strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    save(figure, path)


def nearest_in_pixels(sample: np.ndarray, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The image with the smallest Euclidean distance to a sample, mirrored where that is nearer: (H, W, 3) uint8.

    Args:
        sample: (H, W, 3) uint8.
        images: (M, H, W, 3) uint8; may be a memory map.
        rows: (N,) int64, which images to look at.
    """
    views = [sample.astype(np.int32), sample[:, ::-1].astype(np.int32)]
    # Image by image: all at once would need many times the memory of the data set.
    distances = np.array([[np.square(images[row] - view).sum() for view in views] for row in rows])
    place, mirrored = np.unravel_index(distances.argmin(), distances.shape)
    return images[rows[place]][:, ::-1] if mirrored else images[rows[place]]
