"""An exponential moving average of the weights: the model that is kept."""

import copy

import torch
from torch import Tensor

from ddpm.network.unet import UNet


class Ema:
    """Average the weights with a decay that grows to its full value, so that short trainings keep nothing of the start.

    The decay at step k is min(decay, (1 + k) / (10 + k)): with a constant 0.9999 the average would be mostly the
    random first weights for 10,000 steps. A weight's share in the average halves every ln 2 / (1 - decay) steps, so a
    batch of another size wants another decay.

    Attributes:
        model: a copy of the network that holds the average; in eval mode, without gradients.
    """

    def __init__(self, model: UNet, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self._average: list[Tensor] = list(self.model.parameters())
        self._weights: list[Tensor] = list(model.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after training step `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, self._weights, 1 - decay)
