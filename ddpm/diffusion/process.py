"""The forward process, what the network learns of it, and the reverse process (Ho et al. 2020)."""

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.diffusion.schedules import SCHEDULES

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class Posterior(Generic[Number]):
    """q(x_s | x_t, x_0) for s < t: a Gaussian with mean `x0_weight · x_0 + xt_weight · x_t` (Ho et al. 2020, eq. 6-7).

    variance: the true one, "small"; beta: the upper bound, "large" (Ho et al. 2020, section 3.2).
    """

    x0_weight: Number
    xt_weight: Number
    variance: Number
    beta: Number

    def log_variance(self, v: Tensor) -> Tensor:
        """The logarithm of a learned variance: v 0 is the small one, 1 the large (Nichol & Dhariwal 2021, eq. 15)."""
        small, large = (torch.as_tensor(bound).log().float() for bound in (self.variance, self.beta))
        return v * large + (1 - v) * small


def posterior(alpha_cumprod_t: Number, alpha_cumprod_s: Number) -> Posterior[Number]:
    """The reverse step between two noise levels, given by their ᾱ_t < ᾱ_s, float64 numbers or tensors.

    Steps may be skipped: the product of the α in between takes the place of α_t (Nichol & Dhariwal 2021, eq. 19).
    """
    alpha = alpha_cumprod_t / alpha_cumprod_s
    beta = 1 - alpha
    return Posterior(
        x0_weight=alpha_cumprod_s**0.5 * beta / (1 - alpha_cumprod_t),
        xt_weight=alpha**0.5 * (1 - alpha_cumprod_s) / (1 - alpha_cumprod_t),
        variance=beta * (1 - alpha_cumprod_s) / (1 - alpha_cumprod_t),
        beta=beta,
    )


class Diffusion:
    """One noise schedule, one prediction target, and whether the variance of the reverse process is predicted too.

    Attributes:
        alphas_cumprod: (T,) float64 on the given device, next to the images.
        target: what the network predicts: eps, v or x0.
        variance: fixed, or learned (Nichol & Dhariwal 2021, section 3.1).
    """

    def __init__(
        self,
        schedule: str,
        timesteps: int,
        target: str,
        variance: str = "fixed",
        device: torch.device | str = "cpu",
    ) -> None:
        self.alphas_cumprod = SCHEDULES[schedule](timesteps).to(device)
        self.target = target
        self.variance = variance
        # A second copy for the host: reading single values from a GPU would wait for it at every sampling step.
        self._alphas_cumprod = self.alphas_cumprod.tolist()

    @property
    def timesteps(self) -> int:
        """T, the number of noise levels in training."""
        return len(self._alphas_cumprod)

    @property
    def output_channels(self) -> int:
        """Channels of the network's output for an RGB image; `split` takes them apart."""
        return 6 if self.variance == "learned" else 3

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Take the network's output apart, the only place that knows the order of its channels.

        Args:
            output: (B, `output_channels`, H, W).

        Returns:
            The prediction of the target, (B, 3, H, W), and for a model that learned its variance v of the same shape,
            which interpolates between the two bounds of the variance (Nichol & Dhariwal 2021, eq. 15).
        """
        if self.variance == "fixed":
            return output, None
        prediction, raw = output.chunk(2, dim=1)
        # From [-1, 1], so that a network whose last layer is zero starts half-way between the bounds.
        return prediction, (raw.float() + 1) / 2

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the image and of the noise in x_t.

        Args:
            t: (B,) int64 in [0, T).

        Returns:
            sqrt(ᾱ_t) and sqrt(1 - ᾱ_t), each (B, 1, 1, 1) float32.
        """
        alpha_cumprod = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return alpha_cumprod.sqrt().float(), (1 - alpha_cumprod).sqrt().float()

    def add_noise(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Draw x_t from q(x_t | x_0) with the given noise (Ho et al. 2020, eq. 4).

        Args:
            x0: (B, C, H, W) float32 in [-1, 1].
            t: (B,) int64 in [0, T).
            eps: like x0, standard normal.
        """
        alpha, sigma = self.alpha_sigma(t)
        return alpha * x0 + sigma * eps

    def target_of(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What a perfect network would predict for x_t; v = α ε - σ x_0 (Salimans & Ho 2022, appendix D)."""
        if self.target == "eps":
            return eps
        if self.target == "x0":
            return x0
        alpha, sigma = self.alpha_sigma(t)
        return alpha * eps - sigma * x0

    def predict_x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Turn the network's prediction for x_t into the image that it stands for, not clipped."""
        if self.target == "x0":
            return prediction
        alpha, sigma = self.alpha_sigma(t)
        if self.target == "eps":
            return (x_t - sigma * prediction) / alpha
        return alpha * x_t - sigma * prediction

    def loss(self, prediction: Tensor, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """L_simple: the squared error of the network's prediction for x_t (Ho et al. 2020, eq. 14).

        Returns:
            (B,) float32, the mean over each image.
        """
        errors = F.mse_loss(prediction.float(), self.target_of(x0, t, eps), reduction="none")
        return errors.mean(dim=(1, 2, 3))

    def min_snr_weight(self, t: Tensor, gamma: float) -> Tensor:
        """Weight of `loss` by Min-SNR-γ: whatever the target, min(SNR, γ) times the error of x0 (Hang et al. 2023).

        Args:
            t: (B,) int64 in [0, T).
            gamma: above 0; the paper's is 5.

        Returns:
            (B,) float32.
        """
        alpha_cumprod = self.alphas_cumprod[t]
        snr = alpha_cumprod / (1 - alpha_cumprod)
        # By how much an error of x0 grows, squared, when it is expressed as one of the target.
        growth = {"x0": torch.ones_like(snr), "eps": snr, "v": snr + 1}[self.target]
        return (snr.clamp(max=gamma) / growth).float()

    def alpha_cumprod(self, t: int) -> float:
        """ᾱ_t, with t = -1 standing for the clean image."""
        return 1.0 if t < 0 else self._alphas_cumprod[t]

    def half_log_snr(self, t: int) -> float:
        """λ_t = log(α_t / σ_t), which is infinite for the clean image (Lu et al. 2022, section 2)."""
        alpha_cumprod = self.alpha_cumprod(t)
        return 0.5 * (math.log(alpha_cumprod) - math.log1p(-alpha_cumprod)) if t >= 0 else math.inf

    def posterior(self, t: int, s: int) -> Posterior[float]:
        """The reverse step from t to an earlier s; s = -1 is the clean image."""
        return posterior(self.alpha_cumprod(t), self.alpha_cumprod(s))
