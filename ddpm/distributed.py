"""Several processes at one piece of work, each with a GPU of its own, as torchrun starts them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed

from ddpm.errors import InputError

PROCESSES = "DDPM_PROCESSES"  # in the environment, because how many share the work is no part of what it gives


@dataclass(frozen=True)
class Group:
    """The processes at the work, and which of them this is."""

    rank: int = 0
    size: int = 1

    def gather(self, content: Any) -> list[Any]:
        """Collect what every process has, by rank, in the first one; the others get an empty list."""
        if self.size == 1:
            return [content]
        gathered = [None] * self.size if self.rank == 0 else None
        torch.distributed.gather_object(content, gathered)
        return gathered or []


def spread(module: str) -> None:
    """Replace this process by torchrun with DDPM_PROCESSES of its kind, if there shall be more than one.

    Args:
        module: what they run, such as stages.sample.

    Raises:
        InputError: DDPM_PROCESSES is no number of processes.
    """
    count = os.environ.get(PROCESSES, "1")
    if not count.isdecimal() or int(count) < 1:
        raise InputError(f"{PROCESSES}: found {count!r}, expected a number of processes, 1 or more")
    if int(count) > 1 and "RANK" not in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(count))))
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
        os.execv(sys.executable, [sys.executable, *torchrun, "-m", module])


@contextmanager
def process_group() -> Iterator[Group]:
    """Join the other processes that torchrun has started; without it, be alone."""
    if "RANK" not in os.environ:
        yield Group()
        return
    # gloo, because only finished images are passed on, from the host's memory; and one process may be far ahead.
    torch.distributed.init_process_group("gloo", timeout=timedelta(days=365))
    try:
        yield Group(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()
