"""From noise to images: one generator function per sampler, each yielding x after every step; the last is the image.

Common arguments:
    denoise: maps x_t (B, C, H, W) and a step t to the image in it, clipped to [-1, 1].
    x: (B, C, H, W) float32, standard normal: x_T.
    steps: descending time steps, as from `spaced_steps`.
    noise: draws standard normal noise shaped like x.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion import Diffusion

Denoise = Callable[[Tensor, int], Tensor]
Noise = Callable[[], Tensor]


def spaced_steps(timesteps: int, count: int) -> list[int]:
    """Choose `count` of T time steps, evenly spaced down from the noisiest ("trailing"; Lin et al. 2024, table 2)."""
    return [round(timesteps * k / count) - 1 for k in range(count, 0, -1)]


def ddpm(
    denoise: Denoise, diffusion: Diffusion, x: Tensor, steps: Sequence[int], noise: Noise, variance: str = "small"
) -> Iterator[Tensor]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2).

    `variance` is "small" for that of the posterior, "large" for β (Ho et al. 2020, section 3.2).
    """
    for t, s in pairwise([*steps, -1]):
        posterior = diffusion.posterior(t, s)
        x = posterior.x0_weight * denoise(x, t) + posterior.xt_weight * x
        if s >= 0:
            sigma = (posterior.variance if variance == "small" else posterior.beta) ** 0.5
            x = x + sigma * noise()
        yield x


def ddim(
    denoise: Denoise, diffusion: Diffusion, x: Tensor, steps: Sequence[int], noise: Noise, eta: float = 0.0
) -> Iterator[Tensor]:
    """Implicit sampling (Song et al. 2021, eq. 12).

    `eta` 0 is deterministic, 1 equals `ddpm` with the small variance (Song et al. 2021, eq. 16).
    """
    for t, s in pairwise([*steps, -1]):
        x0 = denoise(x, t)
        # From the clipped image, so that the two parts still add up to x.
        eps = (x - diffusion.level(t) ** 0.5 * x0) / (1 - diffusion.level(t)) ** 0.5
        variance = eta**2 * diffusion.posterior(t, s).variance
        x = diffusion.level(s) ** 0.5 * x0 + (1 - diffusion.level(s) - variance) ** 0.5 * eps
        if variance > 0:
            x = x + variance**0.5 * noise()
        yield x


class ImageNoise:
    """Standard normal noise that belongs to single images: each has a random stream of its own.

    Image i depends on the seed and on i alone, not on which images share its batch. The numbers are drawn on the
    CPU, so that a GPU starts from the same noise.
    """

    def __init__(self, seed: int, indices: Sequence[int], image_shape: tuple[int, int, int], device: torch.device):
        self._streams = [np.random.Generator(np.random.Philox(key=(seed, index))) for index in indices]
        self._image_shape = image_shape
        self._device = device

    def __call__(self) -> Tensor:
        """Draw the next noise of each image: (B, C, H, W) float32."""
        draws = [stream.standard_normal(self._image_shape, dtype=np.float32) for stream in self._streams]
        return torch.from_numpy(np.stack(draws)).to(self._device)

    def uniform(self) -> np.ndarray:
        """Draw one number in [0, 1) per image: (B,) float64."""
        return np.array([stream.random() for stream in self._streams])
