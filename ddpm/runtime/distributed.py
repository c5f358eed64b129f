"""Several processes at one piece of work, each with a GPU of its own, as torchrun starts them."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch.distributed
from torch import Tensor

from ddpm.runtime import signals
from ddpm.runtime.errors import InputError, RunError

PROCESSES = "DDPM_PROCESSES"  # in the environment, because how many share the work is no part of what it gives
GRACE = 60.0  # seconds in which torchrun ends the processes that one of them has left behind
CPU = torch.device("cpu")
# Without an address, processes look for each other by the name of their machine, for ever where no DNS knows it.
HERE = ("--standalone", "--local-addr", "127.0.0.1")


@dataclass(frozen=True)
class Group:
    """The processes at the work, and which of them this is."""

    rank: int = 0
    size: int = 1

    def share(self, count: int) -> slice:
        """Which of `count` things in a row are this process's; the shares differ by one at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def mean(self, values: Tensor) -> Tensor:
        """Average a tensor over all processes, in place; each of them must call it. A GPU does it in its own time."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
            values /= self.size
        return values

    def highest(self, number: int) -> int:
        """The largest of the processes' whole numbers, from 0 on; each must call it. It keeps no GPU waiting."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number)
        torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX)
        return int(numbers)

    def broadcast(self, content: Any) -> Any:
        """Broadcast what rank 0 has to all ranks; each of them must call it."""
        contents = [content]
        if self.size > 1:
            torch.distributed.broadcast_object_list(contents)
        return contents[0]

    def gather(self, content: Any) -> list[Any]:
        """Collect what every process has, by rank, at rank 0; the others get an empty list."""
        if self.size == 1:
            return [content]
        gathered = [None] * self.size if self.rank == 0 else None
        torch.distributed.gather_object(content, gathered)
        return gathered or []


ALONE = Group()


def processes() -> int:
    """How many processes share the work, or will.

    Raises:
        InputError: DDPM_PROCESSES is no number of processes.
    """
    if "RANK" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    count = os.environ.get(PROCESSES, "1")
    if not count.isdecimal() or int(count) < 1:
        raise InputError(f"{PROCESSES}: found {count!r}, expected a number of processes, 1 or more")
    return int(count)


def spread(module: str, check: Callable[[], object] = lambda: None) -> None:
    """Replace this process by a launcher of DDPM_PROCESSES of its kind, if there shall be more than one.

    Args:
        module: what they run, such as stages.sample.
        check: is called before, so that a fault that all of them would find is reported once.

    Raises:
        InputError: see `processes`; and whatever `check` raises.
    """
    count = processes()
    if count > 1 and "RANK" not in os.environ:
        check()
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        torchrun = [*HERE, "--nproc-per-node", str(count), "-m", module]
        signals.settle()
        os.execv(sys.executable, [sys.executable, "-m", "ddpm.runtime.distributed", *torchrun])


def launch(arguments: list[str]) -> NoReturn:
    """Run torchrun, and end as its processes did: with the exit code of the one that failed first, or 128 + signal."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.disable()  # the process that failed has printed why, in one line; torchrun would add a page
    try:
        torchrun(arguments)
    except ChildFailedError as failure:
        code = failure.get_first_failure()[1].exitcode
        if code < 0:
            name = signal.Signals(-code).name
            print(f"error: {name} ended one of the processes; run the same command again", file=sys.stderr)
        sys.exit(code if code > 0 else 128 - code)
    except SignalException as ended:
        sys.exit(128 + ended.sigval)
    sys.exit(0)


@contextmanager
def process_group(device: torch.device = CPU) -> Iterator[Group]:
    """Join the other processes that torchrun has started; without it, be alone.

    Args:
        device: where the tensors are that they exchange; the CPU if there are none.

    Raises:
        RunError: another process has ended before its time.
    """
    if "RANK" not in os.environ:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # One process may be far ahead, or wait for rank 0, which generates, scores and writes.
    torch.distributed.init_process_group(backend, timeout=timedelta(days=365))
    try:
        yield Group(torch.distributed.get_rank(), torch.distributed.get_world_size())
    except RuntimeError as error:
        if not _peer_is_gone(error):
            raise
        # torchrun ends this process in a moment, and the one that failed has printed why.
        time.sleep(GRACE)
        raise RunError("another process of this work has ended; see its own message, maybe on its machine") from None
    # Not after a fault, because it may wait for those that are gone.
    torch.distributed.destroy_process_group()


def _peer_is_gone(error: RuntimeError) -> bool:
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error) or "by peer" in str(error)


if __name__ == "__main__":
    launch(sys.argv[1:])
