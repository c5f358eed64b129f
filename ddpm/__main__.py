"""`python -m ddpm`: what is done with results, apart from the pipeline that makes them."""

import argparse

from ddpm.commands import export
from ddpm.errors import guarded


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m ddpm", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    help_text = "send to MLflow what earlier stages could not, because its server or disk failed"
    commands.add_parser("sync", help=help_text, description=help_text).set_defaults(action=sync)
    for command in (export,):
        command.add_parser(commands)
    arguments = parser.parse_args()
    guarded(lambda: arguments.action(arguments))


def sync(_arguments: argparse.Namespace) -> None:
    """Send what is unsent."""
    from ddpm import tracking

    count = tracking.sync()
    print(f"Sent {count} run{'s' * (count != 1)}." if count else "Nothing was left to send.")


if __name__ == "__main__":
    main()
