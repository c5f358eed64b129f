"""Does a training still hold finite numbers? Looked at in every step without keeping a GPU waiting."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm.training.step import TrainStep

NAMES = {"loss": "loss", "grad_norm": "gradient norm", "vlb": "variational bound"}


class Watch:
    """Remembers the first step whose curves were not finite; reading it waits for a GPU, looking does not."""

    def __init__(self, curves: Sequence[str], device: torch.device) -> None:
        """Begin to watch; curves are names of `NAMES`."""
        self._curves = curves
        self._step = torch.zeros((), dtype=torch.int64, device=device)  # 0: none yet
        self._values = torch.zeros(len(curves), device=device)

    def look(self, step: int, values: Tensor) -> None:
        """Take note of the curves of a step, (C,) float32 on the device."""
        is_first = (self._step == 0) & ~values.isfinite().all()
        self._step = torch.where(is_first, step, self._step)
        self._values = torch.where(is_first, values, self._values)

    def fault(self) -> str:
        """Report at which step which of the curves was not finite first; "" if all have been."""
        if not (step := int(self._step)):
            return ""
        values = dict(zip(self._curves, self._values, strict=True))
        bad = [f"the {NAMES[name]} was {value.item()}" for name, value in values.items() if not value.isfinite()]
        good = [f"the {NAMES[name]} {value.item():.4g}" for name, value in values.items() if value.isfinite()]
        return f"at step {step} {' and '.join(bad)}" + (f" ({', '.join(good)})" if good else "")


def is_finite(step: TrainStep) -> bool:
    """Whether all weights, averages and moments of a training are finite numbers, in a single look at the device."""
    moments = [tensor for state in step.optimizer.state.values() for tensor in state.values()]
    tensors = [*step.unet.parameters(), *step.ema.model.parameters(), *moments]
    # The largest magnitude of all; a NaN is one too.
    return bool(torch.nn.utils.get_total_norm([tensor.detach() for tensor in tensors], float("inf")).isfinite())
