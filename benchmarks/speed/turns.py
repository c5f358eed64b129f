"""Contenders in a process each, which take turns at the device."""

import multiprocessing
import random
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.loops import Workload
from benchmarks.speed.contenders import CONTENDERS
from ddpm.runtime.errors import RunError


@dataclass(frozen=True)
class Player:
    """A contender in its process.

    facts: parameters and flops, as `contenders.Contender` has them.
    """

    name: str
    facts: dict[str, int]
    connection: Connection

    def turn(self, steps: int) -> dict[str, Any]:
        """Take so many steps; returns seconds, and peak_memory, bytes of the GPU's memory or None.

        Raises:
            RunError: it failed; its traceback is on stderr.
        """
        self.connection.send(steps)
        return _answer(self.name, self.connection)


def orders(players: list[Player], rounds: int) -> Iterator[list[Player]]:
    """The order of each round, shuffled anew, so that nobody is always after the same neighbour; always the same."""
    shuffle = random.Random(0)
    for _ in range(rounds):
        yield shuffle.sample(players, len(players))


@contextmanager
def players(names: list[str], work: Workload) -> Iterator[list[Player]]:
    """Build the contenders, one after the other; their processes end with the block."""
    context = multiprocessing.get_context("spawn")  # a fork would share what the parent has set and started
    processes, opened = [], []
    try:
        for name in names:
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(name, work, there))
            process.start()
            there.close()  # so that the pipe breaks when the process dies
            processes.append((process, here))
            opened.append(Player(name, _answer(name, here), here))
        yield opened
    finally:
        for process, here in processes:
            here.close()
            process.join(10)
            process.terminate()  # a loader may hold it up
            process.join()


def _answer(name: str, connection: Connection) -> Any:
    try:
        return connection.recv()
    except EOFError:
        raise RunError(f"{name}: this contender failed, see above; leave it out with --only") from None


def _serve(name: str, work: Workload, connection: Connection) -> None:
    """Send what the contender is; then take turns until the pipe is closed."""
    try:
        contender = CONTENDERS[name](work)
        connection.send({"parameters": contender.parameters, "flops": contender.flops})
        while True:
            steps = connection.recv()
            on_gpu = torch.cuda.is_available() and torch.cuda.memory_allocated() > 0
            if on_gpu:  # takes the memory again that the last turn has given back
                contender.run(1)
                torch.cuda.synchronize()
            started = time.perf_counter()
            contender.run(steps)
            if on_gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            memory = torch.cuda.max_memory_allocated() if on_gpu else None
            if on_gpu:  # weights and images stay, activations of gigabytes would be in the next one's way
                torch.cuda.empty_cache()
            connection.send({"seconds": seconds, "peak_memory": memory})
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception:
        traceback.print_exc()
