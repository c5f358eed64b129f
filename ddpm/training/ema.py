"""A moving average of the weights: the model that is kept."""

import copy

import torch
from torch import Tensor

from ddpm.network.unet import UNet


class Ema:
    """Average the weights with a decay that grows, so that short trainings keep nothing of the start.

    Without `length`, the decay at step k, counted from 0, is min(decay, (1 + k) / (10 + k)): with a constant 0.9999 the
    average would be mostly the random first weights for 6,900 steps. A weight's share in the average halves every
    ln 2 / (1 - decay) steps, so a batch of another size wants another decay. With `length`, the decay is
    (1 - 1/(k + 1))^(γ + 1), and the average reaches back by that part of the training so far, however long it is
    (Karras et al. 2024, section 3.1).

    Attributes:
        model: a copy of the network that holds the average; in eval mode, without gradients.
    """

    def __init__(self, model: UNet, decay: float, length: float = 0.0) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._largest, self._exponent = decay, exponent(length) if length else None
        self._average: list[Tensor] = list(self.model.parameters())
        self._weights: list[Tensor] = list(model.parameters())

    def decay(self, step: int) -> float:
        """What the average keeps of itself at training step `step`, counted from 0."""
        if self._exponent is None:
            return min(self._largest, (1 + step) / (10 + step))
        return float((1 - 1 / (step + 1)) ** (self._exponent + 1))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after training step `step`, counted from 0."""
        torch._foreach_lerp_(self._average, self._weights, 1 - self.decay(step))


def exponent(length: float) -> float:
    """The γ of a power-function average whose width is this part of the training (Karras et al. 2024, eq. 5).

    length: σ_rel = √((γ + 1) / ((γ + 2)² (γ + 3))), above 0 and at most 0.25; γ is found by bisection.
    """
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        width = ((middle + 1) / ((middle + 2) ** 2 * (middle + 3))) ** 0.5
        low, high = (middle, high) if width > length else (low, middle)
    return low
