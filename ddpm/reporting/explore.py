"""What the data and the noise schedules are, in numbers: the tables of reports/explore.md."""

import math
from typing import Any

import numpy as np
import torch

from ddpm.data.dataset import PackedImages
from ddpm.diffusion.schedules import SCHEDULES, log_snr

CLEAN, NOISE = 0.99, 0.01  # ᾱ beyond which an image is nearly clean, or nearly pure noise
MARKS = 5  # steps whose ᾱ is printed, evenly spaced from the first to the last
WEIGHT_LOG_SNR = (-6, -3, 0, 3, 6)
CHUNK = 256  # images whose pixels are in memory at a time


def data_facts(packed: PackedImages, heldout_rows: np.ndarray) -> dict[str, Any]:
    """Count and measure the images.

    Args:
        packed: the data set.
        heldout_rows: row numbers of the held-out images.

    Returns:
        source, count, image_size; copies: number of images with the pixels of another; skipped: number of files left
        out; classes: (name, images, held-out images) of each, largest first; width and height: smallest, median and
        largest, pixels before preprocessing; mean and std: of red, green and blue in [-1, 1]; variance: the mean of the
        channels' variances.
    """
    summary, items = packed.summary, packed.items
    mean, variance = pixel_moments(packed.images)
    names = summary["class_names"]
    heldout = np.bincount(items["label"].iloc[heldout_rows], minlength=len(names)).tolist()
    classes = zip(names, summary["class_counts"], heldout, strict=True)
    return {
        **{name: summary[name] for name in ("source", "count", "image_size")},
        "copies": sum(len(group) - 1 for group in summary.get("copies", [])),
        "skipped": len(summary.get("skipped", [])),
        "classes": sorted(classes, key=lambda named: -named[1]),
        **{side: [round(items[side].quantile(share)) for share in (0, 0.5, 1)] for side in ("width", "height")},
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        "variance": float(variance.mean()),
    }


def pixel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel of (N, H, W, 3) uint8 images, scaled to [-1, 1]: (3,) float64 each."""
    # Counts of the 256 values, so that the result does not depend on the order of additions.
    counts = np.zeros((3, 256), dtype=np.int64)
    for first in range(0, len(images), CHUNK):
        chunk = images[first : first + CHUNK]
        counts += [np.bincount(chunk[..., channel].ravel(), minlength=256) for channel in range(3)]
    values = np.arange(256) / 127.5 - 1
    mean = counts @ values / counts.sum(axis=1)
    return mean, counts @ values**2 / counts.sum(axis=1) - mean**2


def schedule_facts(timesteps: int, variance: float) -> dict[str, dict[str, Any]]:
    """Measure each schedule.

    Args:
        timesteps: T.
        variance: that of the images' pixels in [-1, 1]; ᾱ alone is the share of the image only if it is 1.

    Returns:
        By name: levels, ᾱ at `marks`; log_snr of the first and the last step; even, the first step at which noise
        outweighs an image of variance 1, and even_here, one of `variance`; clean and noise, the shares of the steps
        with nearly clean images and with nearly pure noise.
    """
    facts = {}
    for name, schedule in SCHEDULES.items():
        levels = schedule(timesteps)
        snr = log_snr(levels)
        facts[name] = {
            "levels": levels[marks(timesteps)].tolist(),
            "log_snr": snr[[0, -1]].tolist(),
            "even": _first(snr < 0),
            "even_here": _first(snr + math.log(max(variance, 1e-9)) < 0),
            "clean": (levels > CLEAN).double().mean().item(),
            "noise": (levels < NOISE).double().mean().item(),
        }
    return facts


def marks(timesteps: int) -> list[int]:
    """Steps whose ᾱ is printed, from the first, 0, to the last, T - 1."""
    return sorted({round(step) for step in np.linspace(0, timesteps - 1, MARKS).tolist()})


def loss_weights() -> list[tuple[int, dict[str, float]]]:
    """What an error of the image costs in L_simple of each target, by log-SNR (Salimans & Ho 2022, section 4)."""
    return [(level, {"eps": math.exp(level), "v": math.exp(level) + 1, "x0": 1.0}) for level in WEIGHT_LOG_SNR]


def _first(steps: torch.Tensor) -> int:
    return int(steps.nonzero()[0])
