"""`python -m ddpm compare`: the scores of all experiments side by side, from the MLflow store."""

import argparse
import re
from pathlib import Path
from typing import Any

from ddpm.runtime.paths import REPORTS

HELP = "compare the scores of all finished runs: tables, figures and pictures in reports/comparison.html"
EXAMPLE = """example:
  python -m ddpm compare --filter 'params."train.lr" = "0.0002" and tags.device LIKE "%H100%"'"""


def add_parser(commands: Any) -> None:
    """Add the command to those of `python -m ddpm`."""
    parser = commands.add_parser(
        "compare", help=HELP, description=HELP, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(action=compare)
    parser.add_argument("--experiment", metavar="NAME", help="of MLflow (default: tracking.experiment of params.yaml)")
    parser.add_argument(
        "--filter",
        dest="condition",
        default="",
        metavar="CONDITION",
        help="only these runs, in MLflow's search language",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=REPORTS,
        metavar="DIR",
        help="where the files go (default: reports)",
    )
    parser.add_argument(
        "--name",
        default="comparison",
        metavar="NAME",
        help="of the files: NAME.md, .html, .csv and the pictures in NAME/ (default: comparison)",
    )


def compare(arguments: argparse.Namespace) -> None:
    """Read the store and write the comparison.

    Raises:
        InputError: there is no store, experiment or scored run, or an option cannot be used.
        RunError: the store cannot be read.
    """
    # Imported here, because pandas, matplotlib and MLflow take seconds, which --help should not.
    from ddpm.config import load_config
    from ddpm.reporting.comparison.pages import write_comparison
    from ddpm.runtime.errors import InputError, is_disk_full
    from ddpm.tracking.finished import scored_runs

    if not re.fullmatch(r"[\w-]+", arguments.name):
        raise InputError(f"--name: found {arguments.name!r}, choose letters, digits, - and _; --out names the folder")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise InputError(f"--out: {arguments.out} cannot be made ({error.strerror}); name another folder") from None
    experiment = arguments.experiment or load_config().tracking.experiment
    runs = scored_runs(experiment, arguments.condition)
    files = write_comparison(runs, arguments.out, arguments.name, experiment, arguments.condition)
    print(f"Compared {len(runs)} run{'s' * (len(runs) != 1)}: {', '.join(map(str, files))}")
