"""Noise schedules: how much of the image is left after t steps of noise.

A schedule is its `alphas_cumprod`, written ᾱ in the papers: (T,) float64, strictly decreasing, inside (0, 1).
x_t = sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) ε (Ho et al. 2020, eq. 4).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# Nichol & Dhariwal 2021, section 3.2: a larger β leaves x_{T-1} without any signal.
MAX_BETA = 0.999


def linear(timesteps: int) -> Tensor:
    """β rising linearly from 1e-4 to 0.02 over 1000 steps (Ho et al. 2020, section 4).

    Other step counts scale β by 1000 / T, which keeps the total noise about the same (Nichol & Dhariwal 2021).
    """
    scale = 1000 / timesteps
    betas = torch.linspace(scale * 1e-4, scale * 0.02, timesteps, dtype=torch.float64)
    return torch.cumprod(1 - betas.clamp(max=MAX_BETA), dim=0)


def cosine(timesteps: int) -> Tensor:
    """ᾱ falling as a squared cosine, β capped at 0.999 (Nichol & Dhariwal 2021, eq. 17)."""
    offset = 0.008  # with which the first noise, √β of 1000 steps, is a little below one grey level

    def signal(u: Tensor) -> Tensor:
        return torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2

    return _from_signal(signal, timesteps)


def sigmoid(timesteps: int) -> Tensor:
    """ᾱ falling as a sigmoid from -3 to 3, normalised to reach both ends (Jabri et al. 2022, algorithm 1)."""
    start, end = torch.sigmoid(torch.tensor([-3.0, 3.0], dtype=torch.float64))

    def signal(u: Tensor) -> Tensor:
        return (end - torch.sigmoid(6 * u - 3)) / (end - start)

    return _from_signal(signal, timesteps)


SCHEDULES: dict[str, Callable[[int], Tensor]] = {"linear": linear, "cosine": cosine, "sigmoid": sigmoid}


def log_snr(alphas_cumprod: Tensor) -> Tensor:
    """log(ᾱ / (1 - ᾱ)), the logarithm of how much stronger the image is than the noise; float64 like ᾱ."""
    return torch.logit(alphas_cumprod)


def _from_signal(signal: Callable[[Tensor], Tensor], timesteps: int) -> Tensor:
    """Turn a continuous ᾱ(u), u in [0, 1], into T steps with capped β (Nichol & Dhariwal 2021, section 3.2)."""
    levels = signal(torch.linspace(0, 1, timesteps + 1, dtype=torch.float64))
    betas = (1 - levels[1:] / levels[:-1]).clamp(max=MAX_BETA)
    return torch.cumprod(1 - betas, dim=0)
