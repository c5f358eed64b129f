"""From noise to images: one generator function per sampler, each yielding x after every step; the last is the image.

Common arguments:
    denoise: maps x_t (B, C, H, W) and a step t to the image in it, clipped to [-1, 1], and to v, the learned place
        of the variance between its bounds, or None (`Diffusion.split`).
    diffusion: the forward process.
    x: (B, C, H, W) float32, standard normal: x_T.
    steps: descending time steps, from one of `SPACINGS`; the last of them leads to the clean image.
    noise: draws standard normal noise shaped like x.

All coefficients are float64 numbers of the host, so no step waits for a GPU.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion.process import Diffusion

Denoise = Callable[[Tensor, int], tuple[Tensor, Tensor | None]]
Noise = Callable[[], Tensor]

# Where the linear schedule ends. The cosine one ends far below, with one or two steps over a range of λ that holds no
# more than a trace of the image; without a limit, few of the steps would be left for the rest.
MIN_HALF_LOG_SNR = -5.1


def ddpm(
    denoise: Denoise, diffusion: Diffusion, x: Tensor, steps: Sequence[int], noise: Noise, variance: str = "small"
) -> Iterator[Tensor]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2).

    `variance` is "small" for that of the posterior, "large" for β (Ho et al. 2020, section 3.2), "learned" for what
    the network says (Nichol & Dhariwal 2021, eq. 15).
    """
    for t, s in pairwise([*steps, -1]):
        posterior = diffusion.posterior(t, s)
        x0, v = denoise(x, t)
        x = posterior.x0_weight * x0 + posterior.xt_weight * x
        if s >= 0 and variance == "learned":
            assert v is not None, "a model that did not learn its variance"
            x = x + torch.exp(0.5 * posterior.log_variance(v)) * noise()
        elif s >= 0:
            x = x + (posterior.variance if variance == "small" else posterior.beta) ** 0.5 * noise()
        yield x


def ddim(
    denoise: Denoise, diffusion: Diffusion, x: Tensor, steps: Sequence[int], noise: Noise, eta: float = 0.0
) -> Iterator[Tensor]:
    """Implicit sampling (Song et al. 2021, eq. 12).

    `eta` 0 is deterministic, 1 equals `ddpm` with the small variance (Song et al. 2021, eq. 16).
    """
    for t, s in pairwise([*steps, -1]):
        x0, _ = denoise(x, t)
        # From the clipped image, so that the two parts still add up to x.
        eps = (x - diffusion.alpha_cumprod(t) ** 0.5 * x0) / (1 - diffusion.alpha_cumprod(t)) ** 0.5
        variance = eta**2 * diffusion.posterior(t, s).variance
        x = diffusion.alpha_cumprod(s) ** 0.5 * x0 + (1 - diffusion.alpha_cumprod(s) - variance) ** 0.5 * eps
        if variance > 0:
            x = x + variance**0.5 * noise()
        yield x


def dpmpp_2m(
    denoise: Denoise, diffusion: Diffusion, x: Tensor, steps: Sequence[int], noise: Noise, sde: bool = False
) -> Iterator[Tensor]:
    """DPM-Solver++(2M), second order in λ from the two latest images (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    With `sde` it is SDE-DPM-Solver++(2M), which solves the reverse SDE instead of the ODE (appendix of the same paper).
    """
    before: tuple[Tensor, float] | None = None  # image and h of the step before
    for t, s in pairwise([*steps, -1]):
        x0, _ = denoise(x, t)
        h = diffusion.half_log_snr(s) - diffusion.half_log_snr(t)
        d = x0
        # The way to the clean image is infinitely long in λ: nothing can be extrapolated over it, and the update of
        # first order is the network's image itself. Between it and the first step, which has no image before it, every
        # step is of second order, however few there are.
        if before is not None and s >= 0:
            last_x0, last_h = before
            d = x0 + (x0 - last_x0) * h / (2 * last_h)
        alpha_s, sigma_s = diffusion.alpha_cumprod(s) ** 0.5, (1 - diffusion.alpha_cumprod(s)) ** 0.5
        shrink = sigma_s / (1 - diffusion.alpha_cumprod(t)) ** 0.5
        if sde and s >= 0:
            x = shrink * math.exp(-h) * x - alpha_s * math.expm1(-2 * h) * d
            x = x + sigma_s * (-math.expm1(-2 * h)) ** 0.5 * noise()
        else:
            x = shrink * x - alpha_s * math.expm1(-h) * d
        before = x0, h
        yield x


SAMPLERS: dict[str, Callable[..., Iterator[Tensor]]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": partial(dpmpp_2m, sde=True),
}


def trailing(diffusion: Diffusion, count: int) -> list[int]:
    """Evenly spaced from T - 1 down to T / count - 1, so one spacing from the image (Lin et al. 2024, table 2)."""
    return [round(diffusion.timesteps * k / count) - 1 for k in range(count, 0, -1)]


def uniform(diffusion: Diffusion, count: int) -> list[int]:
    """Evenly spaced from T - 1 down to 0 itself ("linspace"; Lin et al. 2024, table 2); a single step is T - 1."""
    last = diffusion.timesteps - 1
    return [round(last * k / (count - 1)) for k in range(count - 1, -1, -1)] if count > 1 else [last]


def logsnr(diffusion: Diffusion, count: int) -> list[int]:
    """T - 1, then evenly spaced in λ down to 0, each at the nearest free step (Lu et al. 2022, section 4)."""
    last = diffusion.timesteps - 1
    rising = [diffusion.half_log_snr(t) for t in range(last, -1, -1)]
    wanted = np.linspace(max(rising[0], MIN_HALF_LOG_SNR), rising[-1], count)
    nearest = np.interp(wanted, rising, np.arange(last, -1, -1)).round().astype(int).tolist()
    steps = [last]
    for left, t in zip(range(count - 2, -1, -1), nearest[1:], strict=True):
        # λ may run over several wanted values in one step: below the last step, and with room for those that are left.
        steps.append(max(min(t, steps[-1] - 1), left))
    return steps


SPACINGS: dict[str, Callable[[Diffusion, int], list[int]]] = {
    "trailing": trailing,
    "uniform": uniform,
    "logsnr": logsnr,
}
