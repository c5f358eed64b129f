"""Random numbers that belong to single images, computed on the device from a counter instead of a carried state.

A number depends on the seed, the image, the draw and its place in the draw, and on nothing else: not on which images
share the batch, nor on the device, but for the rounding of its logarithm and sines. Nothing here waits for a GPU.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Salmon et al. 2011, table 2 and section 4: the multipliers of Philox4x32, and what its key grows by in each round.
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = 0xFFFFFFFF  # 32 bits


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Philox4x32-10: four random words for each counter (Salmon et al. 2011, section 3.3).

    Args:
        counter: four words, int64 in [0, 2**32), of shapes that broadcast.
        key: two words.

    Returns:
        Four words, int64 in [0, 2**32), in the common shape of the counters that differ.
    """
    # int64, because PyTorch calculates little with unsigned words. A product wraps around at 64 bits, which leaves both
    # of its halves as they should be; bits above a word are cut off only where the next product would see them.
    c0, c1, c2, c3 = counter
    for number in range(ROUNDS):
        k0, k1 = ((word + number * weyl) & WORD for word, weyl in zip(key, WEYL, strict=True))
        product0, product2 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0 = ((product2 >> 32) ^ c1 ^ k0) & WORD
        c2 = ((product0 >> 32) ^ c3 ^ k1) & WORD
        c1, c3 = product2, product0
    return [c0, c1 & WORD, c2, c3 & WORD]


class ImageNoise:
    """The random stream of each image of a batch; every call takes the next draw of each."""

    def __init__(self, seed: int, indices: range, image_shape: tuple[int, int, int], device: torch.device) -> None:
        """Start the streams.

        Args:
            seed: 0 to 2**64 - 1.
            indices: numbers of the images, each 0 to 2**32 - 1.
            image_shape: C, H, W.
            device: where the numbers are wanted.
        """
        self._key = (seed & WORD, seed >> 32)
        self._images = torch.arange(indices.start, indices.stop, indices.step, device=device)[:, None]
        self._image_shape = image_shape
        self._draws = 0

    def __call__(self) -> Tensor:
        """Draw standard normal noise for each image: (B, C, H, W) float32."""
        size = math.prod(self._image_shape)
        words = self._words(math.ceil(size / 4))
        # Box & Muller 1958: two uniform numbers give two normal ones. A half keeps the first above 0.
        radius = [((word + 0.5) / 2**32).log_().mul_(-2).sqrt_() for word in words[:2]]
        angle = [word * (2 * math.pi / 2**32) for word in words[2:]]
        normal = [r * wave(a) for r, a in zip(radius, angle, strict=True) for wave in (torch.cos, torch.sin)]
        return torch.cat(normal, dim=1)[:, :size].reshape(-1, *self._image_shape)

    def uniform(self) -> Tensor:
        """Draw one number in (0, 1) for each image: (B,) float64."""
        return (self._words(1)[0][:, 0].double() + 0.5) / 2**32

    def _words(self, count: int) -> list[Tensor]:
        """The words of the next draw: four times (B, count)."""
        places = torch.arange(count, device=self._images.device)[None]
        # Seed, image, draw and place each have bits of their own, so no two numbers ever share a counter and key.
        draw = torch.full_like(places, self._draws)
        self._draws += 1
        return philox((places, draw, self._images, torch.zeros_like(places)), self._key)
