"""Which images make up each batch, and where they are kept."""

from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ddpm.data.pixels import from_uint8
from ddpm.runtime.devices import free_memory

SHARE = 0.25  # of the free memory that images may take; gradients, averages and activations want the rest


def generator(seed: int, purpose: int, *position: int) -> np.random.Generator:
    """A random stream for one purpose that shares nothing with any other.

    purpose 0: order of an epoch; 1: the steps; 2: dropout in a step, of other ranks than 0.
    """
    # A spawn key keeps apart what a list would run together, whatever the seed: 2³² and [0, 1] are the same words.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, *position)))


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

    place = "lie in its memory"

    def __init__(self, device: torch.device, images: np.ndarray, labels: np.ndarray) -> None:
        """Copy (N, H, W, 3) uint8 images and their (N,) classes to the device."""
        # Copies, because PyTorch warns of read-only arrays such as the memory map.
        self.images = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)
        self.device = self.labels.device  # which GPU it is, where `device` may be just "cuda"

    def __len__(self) -> int:
        return len(self.labels)

    def expect(self, rows: Tensor) -> None:
        """Take note of the rows of the next batch; here, nothing has to be made ready for it."""

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) float32 in [-1, 1] and classes (B,) of the given rows, (B,) int64 on the host."""
        rows = _to_device(rows, self.device)
        return from_uint8(self.images[rows]), self.labels[rows]


class StreamedSet(ImageSet):
    """Images that stay on the disk, for want of memory; a thread reads the next batch while the device works."""

    place = "do not fit into its free memory and stream from the disk"

    def __init__(self, device: torch.device, images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> None:
        """Take the given rows, (N,) int64, of a memory map of uint8 images (M, H, W, 3) and of their (M,) classes."""
        super().__init__(device, images[:0], labels[rows])
        self._map, self._rows = images, rows
        # A thread has a CUDA device of its own, for which it pins memory.
        prepare = (lambda: torch.cuda.set_device(self.device)) if device.type == "cuda" else None
        self._reader = ThreadPoolExecutor(1, "reader", prepare)
        self._next: tuple[Tensor, Future[Tensor]] | None = None

    def expect(self, rows: Tensor) -> None:
        """Begin to read the next batch."""
        self._next = rows, self._reader.submit(self._read, rows)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """As `ImageSet.batch`; it need not be the batch that was expected."""
        is_next = self._next is not None and torch.equal(self._next[0], rows)
        images = self._next[1].result() if self._next and is_next else self._read(rows)
        images = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).contiguous()
        return from_uint8(images), self.labels[_to_device(rows, self.device)]

    def _read(self, rows: Tensor) -> Tensor:
        images = torch.from_numpy(self._map[self._rows[rows.numpy()]])
        # PyTorch keeps pinned memory until the GPU has copied it, and hands it out again: that makes the two buffers.
        return images.pin_memory() if self.device.type == "cuda" else images


def streams(size: int, device: torch.device) -> bool:
    """Whether images of so many bytes would be too many for the free memory of the device."""
    return size > SHARE * free_memory(device)


def place_images(
    device: torch.device, images: np.ndarray, labels: np.ndarray, *rows: np.ndarray, stream: bool | None = None
) -> list[ImageSet]:
    """Make sets of several selections of the images, on the device if all of them together fit.

    Args:
        device: where the batches are wanted.
        images: (M, H, W, 3) uint8, a memory map.
        labels: (M,) classes.
        rows: for each set, (N,) int64.
        stream: leave them on the disk; None decides by the free memory.
    """
    if stream is None:
        stream = streams(images.nbytes, device)
    if stream:
        return [StreamedSet(device, images, labels, chosen) for chosen in rows]
    return [ImageSet(device, images[chosen], labels[chosen]) for chosen in rows]


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy from the host without keeping it waiting for a GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
