"""The variational bound, which teaches the variance of the reverse process (Nichol & Dhariwal 2021, section 3)."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ddpm.diffusion.process import Diffusion, posterior

# λ of L_hybrid = L_simple + λ L_vlb (Nichol & Dhariwal 2021, eq. 16).
WEIGHT = 0.001

HALF_LEVEL = 1 / 255  # half of the distance between two pixel values in [-1, 1]
FAR = 10.0  # from one pixel value to beyond all others, in place of the infinity whose gradient would be NaN


def bound(diffusion: Diffusion, prediction: Tensor, v: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """One term of the bound, L_t: what an image costs at step t (Ho et al. 2020, eq. 5).

    The bound is the sum over all T steps, so T times the mean over random t estimates it. Its last term, L_T, has
    nothing to learn and is left out. No gradient reaches the prediction, which L_simple trains better (Nichol &
    Dhariwal 2021, section 3.1).

    Args:
        diffusion: the forward process.
        prediction: (B, 3, H, W), of the diffusion's target.
        v: (B, 3, H, W) float32, see `Diffusion.split`.
        x0: (B, 3, H, W) float32 in [-1, 1], of 8-bit pixel values (between them where images were augmented).
        x_t: like x0, noisy.
        t: (B,) int64 in [0, T).

    Returns:
        (B,) float32, bits per pixel and channel.
    """
    steps = t.view(-1, 1, 1, 1)
    alphas_cumprod = diffusion.alphas_cumprod
    true = posterior(alphas_cumprod[steps], torch.where(steps > 0, alphas_cumprod[steps - 1], 1.0))
    # The true variance of the last step is 0, which has no logarithm; that of the step before stands in for it, as in
    # the code of Ho et al. 2020. It is the smallest of the others.
    true = replace(true, variance=true.variance.clamp(min=diffusion.posterior(1, 0).variance))
    guess = diffusion.predict_x0(prediction.detach().float(), x_t, t)
    # Both means have the same part of x_t, so only the images distinguish them.
    error = true.x0_weight.float() * (x0 - guess)
    log_variance = true.log_variance(v)
    divergence = gaussian_kl(error, true.variance.log().float(), log_variance)
    # The guess of a noisy step may be so far off that rounding leaves no likelihood, whose gradient, NaN, would pass
    # the choice below as well.
    code_length = -discretized_log_likelihood(x0, torch.where(steps > 0, x0, guess), log_variance)
    return torch.where(steps > 0, divergence, code_length).mean(dim=(1, 2, 3)) / math.log(2)


def gaussian_kl(distance: Tensor, log_variance1: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(μ1, σ1²) ‖ N(μ2, σ2²)) in nats, from the distance between the means and the logarithms of the variances."""
    log_ratio = log_variance1 - log_variance2
    return 0.5 * (torch.expm1(log_ratio) - log_ratio + distance**2 * torch.exp(-log_variance2))


def discretized_log_likelihood(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log-probability in nats that a Gaussian falls to the pixel value x0 in [-1, 1] (Ho et al. 2020, eq. 13).

    Each of the 256 values stands for its surroundings; the first and the last for all that is beyond them as well.
    """
    sharpness = torch.exp(-0.5 * log_variance)
    upper = (x0 - mean + torch.where(x0 > 1 - HALF_LEVEL, FAR, HALF_LEVEL)) * sharpness
    lower = (x0 - mean - torch.where(x0 < -1 + HALF_LEVEL, FAR, HALF_LEVEL)) * sharpness
    # Mirrored to the lower tail: the difference of two probabilities near 1 would be lost in rounding.
    mirror = lower + upper > 0
    lower, upper = torch.where(mirror, -upper, lower), torch.where(mirror, -lower, upper)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    return log_upper + torch.log(-torch.expm1(log_lower - log_upper))
