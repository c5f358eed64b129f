"""Generate images, compare experiments, export a model, check this machine; `dvc repro` trains a model."""

import argparse

from ddpm.runtime.interpreter import require

require("numpy", "pydantic", "torch")

from ddpm.commands import compare, doctor, export, sample, sync, use  # noqa: E402
from ddpm.runtime.errors import guarded  # noqa: E402
from ddpm.runtime.streams import end_quietly, withstand  # noqa: E402

COMMANDS = (use, sample, compare, export, doctor, sync)


def main() -> None:
    """Read the command line and run its command."""
    withstand(end_quietly)
    arguments = command_line().parse_args()
    guarded(lambda: arguments.action(arguments))


def command_line() -> argparse.ArgumentParser:
    """All commands with their options."""
    parser = argparse.ArgumentParser(prog="python -m ddpm", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    main()
