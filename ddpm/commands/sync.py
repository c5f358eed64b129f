"""`python -m ddpm sync`: complete the MLflow runs that a failing store left incomplete."""

import argparse
from typing import Any

HELP = "send to MLflow what earlier stages could not, because its server or disk failed"


def add_parser(commands: Any) -> None:
    """Add the command to those of `python -m ddpm`."""
    commands.add_parser("sync", help=HELP, description=HELP).set_defaults(action=sync)


def sync(_arguments: argparse.Namespace) -> None:
    """Send what is unsent."""
    from ddpm.tracking import runs as tracking

    count = tracking.sync()
    print(f"Sent {count} run{'s' * (count != 1)}." if count else "Nothing was left to send.")
