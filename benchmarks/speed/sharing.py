"""What a processor gives to trainings that share it: one alone, two at once, one beside a busy program.

    python -m benchmarks.speed.sharing              # about ten minutes; nothing else should run meanwhile
    python -m benchmarks.speed.sharing --print      # prints the table of docs/speed.md

Each is measured with several numbers of rounds that the threads of OpenMP spin before they sleep (GOMP_SPINCOUNT), the
last of them what GNU OpenMP has by itself; writes reports/benchmarks/sharing.json. Every training is a process of its
own, as two workers of `dvc queue` are.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

import torch

from benchmarks import RESULTS, in_words, machine, read, spread, whereabouts, write
from benchmarks.changes import Changes, changed_config
from ddpm.commands.estimate import random_images
from ddpm.config import load_config
from ddpm.runtime.errors import guarded
from ddpm.runtime.threads import SPINS
from ddpm.training.setup import prepare

NETWORK: Changes = {
    "device": "cpu",
    "data.image_size": 32,
    "model.channels": 32,
    "model.channel_mults": [1, 2, 4],
    "model.blocks": 1,
    "model.attention": [8],
    "model.head_channels": 32,
    "model.dropout": 0.0,
    "model.conditional": True,
    "train.batch_size": 16,
}
COUNTS = (1000, SPINS, 300_000)  # of GOMP_SPINCOUNT; the last is what libgomp has by itself
CASES = {"alone": (1, False), "two": (2, False), "beside": (1, True)}  # trainings at once; a busy program beside them
BUSY = "while True: pass"
FILE = RESULTS / "sharing.json"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.sharing", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(default 5)")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="S", help="of each measurement (default 8)")
    parser.add_argument("--print", action="store_true", help="print the table of what was measured before")
    parser.add_argument("--train", type=float, metavar="S", help=argparse.SUPPRESS)  # a training of a measurement
    options = parser.parse_args()
    if options.train:
        train(options.train)
    else:
        guarded(lambda: show() if options.print else measure(options.rounds, options.seconds))


def show() -> None:
    """Print the table of what was measured before."""
    print(table(read(FILE, "python -m benchmarks.speed.sharing")))


def train(seconds: float) -> None:
    """Train on random images: print `ready`, wait for a line, and print images/s over so many seconds."""
    config = changed_config(load_config(), NETWORK)
    batch = config.train.batch_size
    training = prepare(config, random_images(config, 4 * batch), torch.device("cpu"))
    for step in range(3):
        training.train_step(step)
    print("ready", flush=True)
    sys.stdin.readline()
    steps, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        training.train_step(3 + steps)
        steps += 1
    print(steps * batch / passed, flush=True)


def measure(rounds: int, seconds: float) -> None:
    """Measure all cases in each round, in an order that is shuffled anew, and write the speeds after each."""
    about = {"machine": machine(torch.device("cpu")), "network": NETWORK, "seconds": seconds}
    measured: list[dict[str, float]] = []
    shuffle = random.Random(0)
    cases = [(count, case) for count in COUNTS for case in CASES]
    for number in range(rounds):
        rates = {f"{count} {case}": rate(count, case, seconds) for count, case in shuffle.sample(cases, len(cases))}
        measured.append(rates)
        print(f"round {number + 1}: " + ", ".join(f"{name} {rates[name]:.1f}" for name in sorted(rates)), flush=True)
        write(FILE, about | {"rounds": measured})
    show()


def rate(spins: int, case: str, seconds: float) -> float:
    """Images/s of all trainings of a case together."""
    count, busy = CASES[case]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"GOMP_SPINCOUNT": str(spins)}
    command = [sys.executable, "-m", "benchmarks.speed.sharing", "--train", str(seconds)]
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        trainings = [
            stack.enter_context(subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True))
            for _ in range(count)
        ]
        for training in trainings:
            assert training.stdout and training.stdout.readline() == "ready\n", "a training has failed, see above"
        other = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY])) if busy else None
        try:
            for training in trainings:
                assert training.stdin
                print(file=training.stdin, flush=True)
            return sum(float(training.stdout.readline()) for training in trainings if training.stdout)
        finally:
            if other:
                other.kill()


def table(content: dict[str, Any]) -> str:
    """The table, Markdown: least – **median** – greatest of the rounds."""
    rounds, alone = content["rounds"], f"{COUNTS[-1]} alone"
    lines = [
        f"{whereabouts(content['machine'])}; {len(rounds)} rounds; images/s of all trainings together, and their share "
        "of what one alone makes where threads wait as GNU OpenMP lets them by itself:",
        "",
        "| `GOMP_SPINCOUNT` | one training alone | | two at once | | one beside a busy program | |",
        f"|{'---|' * 7}",
    ]
    for count in COUNTS:
        cells = [f"{count:,}" + {SPINS: " (this project)", COUNTS[-1]: " (GNU OpenMP by itself)"}.get(count, "")]
        for case in CASES:
            name = f"{count} {case}"
            cells.append(in_words(spread([rates[name] for rates in rounds]), ".1f"))
            shares = spread([rates[name] / rates[alone] for rates in rounds])
            cells.append("1" if name == alone else in_words(shares, ".2f"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
