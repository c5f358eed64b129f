"""How long work will take and what it needs, reported while it runs, at no cost."""

import resource
import sys

import torch

from ddpm.runtime.progress import duration


def forecast(steps: int, seconds_per_step: float, device: torch.device) -> str:
    """Forecast what is left of a training, such as "about 2 h 10 min, 9.1 GB".

    Args:
        steps: still to be taken.
        seconds_per_step: of the first few, but for those that compiled or warmed up.
        device: where they were taken, so that the peak of its memory was reached.
    """
    return f"about {duration(steps * seconds_per_step)}, {peak_memory(device) / 1e9:.1f} GB"


def peak_memory(device: torch.device) -> float:
    """Most bytes that were in use so far: of the GPU by PyTorch, or of this process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kilobytes
