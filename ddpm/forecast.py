"""How long work will take and what it needs, told while it runs, at no cost."""

import os
import resource
import sys

import torch


def forecast(steps: int, seconds_per_step: float, device: torch.device) -> str:
    """Say what is left of a training, such as "about 2 h 10 min, 9.1 GB".

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


def machine_memory() -> int:
    """Bytes of memory of this machine, without that of its GPUs."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def duration(seconds: float) -> str:
    """Seconds for people, to two units at most: "40 s", "12 min", "2 h 10 min", "3 d 4 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
