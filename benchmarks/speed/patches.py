"""How fast a network trains on patches, beside the same channels on pixels, at 64×64.

    python -m benchmarks.speed.patches              # about five minutes; nothing else should run meanwhile
    python -m benchmarks.speed.patches --print      # prints the table of docs/speed.md

Writes reports/benchmarks/patches.json. How good the samples are at equal minutes is no matter of this one.
"""

import argparse
import random
from typing import Any

import torch

from benchmarks import RESULTS, in_words, machine, read, spread, whereabouts, write
from benchmarks.changes import Changes, changed_config
from benchmarks.speed.contenders import flops
from ddpm.commands.estimate import random_images, step_timer
from ddpm.config import Config, load_config
from ddpm.network.unet import count_parameters
from ddpm.runtime.errors import guarded
from ddpm.training.setup import prepare

NETWORK: Changes = {
    "device": "cpu",
    "data.image_size": 64,
    "model.channels": 32,
    "model.channel_mults": [1, 2, 4],
    "model.blocks": 1,
    "model.attention": [16],
    "model.head_channels": 32,
    "model.dropout": 0.0,
    "model.conditional": True,
    "train.batch_size": 32,
}
PATCHES = (1, 2, 4)
FILE = RESULTS / "patches.json"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.patches", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(default 5)")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="of each turn (default 4)")
    parser.add_argument("--print", action="store_true", help="print the table of what was measured before")
    options = parser.parse_args()
    guarded(lambda: show() if options.print else measure(load_config(), options.rounds, options.steps))


def show() -> None:
    """Print the table of what was measured before."""
    print(table(read(FILE, "python -m benchmarks.speed.patches")))


def measure(config: Config, rounds: int, steps: int) -> None:
    """Let the networks take turns, in an order that is shuffled anew, and write images/s of each turn."""
    timers, rows = {}, []
    for patch in PATCHES:
        setting = changed_config(config, NETWORK | {"model.patch": patch})
        batch = setting.train.batch_size
        training = prepare(setting, random_images(setting, 2 * batch), torch.device("cpu"))
        timers[patch] = step_timer(training)
        timers[patch](2)
        rows.append(
            {"patch": patch, "parameters": count_parameters(training.unet), "flops": flops(setting), "rates": []}
        )
    shuffle = random.Random(0)
    for number in range(rounds):
        for row in shuffle.sample(rows, len(rows)):
            row["rates"].append(batch / timers[row["patch"]](steps))
        print(f"round {number + 1}: " + ", ".join(f"{row['rates'][-1]:.1f}" for row in rows), flush=True)
    write(FILE, {"machine": machine(torch.device("cpu")), "network": NETWORK, "steps": steps, "rows": rows})
    show()


def table(content: dict[str, Any]) -> str:
    """The table, Markdown: least – **median** – greatest of the rounds; ratios are taken within a round."""
    rows = content["rows"]
    plain = rows[0]["rates"]
    lines = [
        f"{whereabouts(content['machine'])}; {len(plain)} rounds of {content['steps']} steps:",
        "",
        "| `model.patch` | parameters | GFLOP per image | images/s | faster by |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        rates = spread(row["rates"])
        faster = spread([ours / theirs for ours, theirs in zip(row["rates"], plain, strict=True)])
        cells = [
            str(row["patch"]),
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['flops'] / 1e9:.2f}",
            in_words(rates, ".1f"),
        ]
        cells.append("–" if row is rows[0] else in_words(faster, ".2f"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
