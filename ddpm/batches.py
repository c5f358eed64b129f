"""Which images make up each batch, and where they are kept."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ddpm.pixels import from_uint8


def generator(seed: int, purpose: int, *position: int) -> np.random.Generator:
    """A random stream for one purpose that shares nothing with any other.

    purpose 0: order of an epoch; 1: a step; 2: dropout in a step, in a process that is not the first.
    """
    return np.random.default_rng([seed, purpose, *position])


class BatchOrder:
    """Which images make up the batch of a step: every image once per epoch, in an order drawn anew for each.

    Epochs follow one another without a gap, so a batch may hold the end of one and the start of the next; any batch
    size goes with any number of images. A step's batch depends on the seed and the step alone.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size = count, batch_size
        self._permutation = lru_cache(maxsize=2)(lambda epoch: generator(seed, 0, epoch).permutation(count))

    def rows(self, step: int) -> np.ndarray:
        """Row numbers of the batch of a step, (B,) int64."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, offsets = np.divmod(places, self.count)
        return np.concatenate([self._permutation(int(epoch))[offsets[epochs == epoch]] for epoch in np.unique(epochs)])


class ImageSet:
    """Images and classes on the training device.

    images: (N, 3, H, W) uint8.
    labels: (N,) int64.
    """

    def __init__(self, device: torch.device, images: np.ndarray, labels: np.ndarray) -> None:
        """Copy (N, H, W, 3) uint8 images and their (N,) classes to the device."""
        # Copies, because PyTorch warns of read-only arrays such as the memory map.
        self.images = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) float32 in [-1, 1] and classes (B,) of the given rows, (B,) int64 on the host."""
        rows = to_device(rows, self.labels.device)
        return from_uint8(self.images[rows]), self.labels[rows]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy from the host without keeping it waiting for a GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
