"""Paint with a trained model, compare experiments, export a model, check this machine; `dvc repro` makes a model."""

import argparse

from ddpm.runtime.interpreter import require

require("numpy", "pydantic", "torch")

from ddpm.commands import compare, doctor, export, sample, sync, use  # noqa: E402
from ddpm.runtime.errors import guarded  # noqa: E402
from ddpm.runtime.streams import end_quietly, withstand  # noqa: E402

COMMANDS = (use, sample, compare, export, doctor, sync)


def main() -> None:
    """Read the command line and do what it says."""
    withstand(end_quietly)
    parser = argparse.ArgumentParser(prog="python -m ddpm", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    arguments = parser.parse_args()
    guarded(lambda: arguments.action(arguments))


if __name__ == "__main__":
    main()
