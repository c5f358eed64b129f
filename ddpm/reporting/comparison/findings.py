"""Conclusions from a table: which setting is best, and what differs beyond the spread of seeds."""

import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from ddpm.evaluation.intervals import difference
from ddpm.reporting.comparison.names import epochs_name, training_name
from ddpm.reporting.report import plain


def findings(table: pd.DataFrame) -> list[str]:
    """Sentences on schedules and epochs, Markdown; none for a single cell.

    Args:
        table: see `cells.tables`: cells that differ in schedule and epochs alone.
    """
    found = table.sort_values("epochs").to_dict("records")
    if len(found) < 2:
        return []
    best = min(found, key=lambda cell: cell["fid"])
    others = [cell for cell in found if cell["epochs"] == best["epochs"] and cell is not best]
    longer = [cell for cell in found if cell["schedule"] == best["schedule"]]
    count = len(found)
    return [
        f"Lowest mean FID of {count} settings: {plain(training_name(best))}, {best['fid']:.2f}.",
        *(
            f"With as many epochs, {plain(cell['schedule'])} "
            f"{_difference(cell, best, count, 'is higher by', 'is lower by')}"
            for cell in others
        ),
        *(
            f"From {before['epochs']} to {epochs_name(after['epochs'])}, {plain(best['schedule'])} "
            f"{_difference(before, after, count, 'gains', 'loses')}"
            for before, after in pairwise(longer)
        ),
    ]


def sweep(table: pd.DataFrame, settings: Sequence[str]) -> str:
    """The command that queues the trainings of a table, and those that its gaps leave out."""
    first = table.to_dict("records")[0]
    seeds = sorted({seed for seeds in table["seed_names"] for seed in seeds}, key=lambda seed: (len(seed), seed))
    values = {"schedule": sorted(set(table["schedule"])), "epochs": sorted(set(table["epochs"])), "seed": seeds}
    values |= {name.removeprefix("params."): [first[name]] for name in settings if not pd.isna(first[name])}
    return one_line(["dvc", "exp", "run", "--queue", *_options(values)])


def one_line(words: Sequence[str]) -> str:
    """A command for a shell; on one line, so that no name of a user ends the block of code in which it stands."""
    return " ".join(shlex.join(words).split())


def _difference(high: dict[Any, Any], low: dict[Any, Any], settings: int, falls: str, rises: str) -> str:
    """By how much the FID of one cell is above that of another, with its interval where there are seeds for one."""
    gap = high["fid"] - low["fid"]
    found = f"{falls if gap >= 0 else rises} {abs(gap):.2f}"
    interval = difference(high["fids"], low["fids"], settings)
    if interval is None:
        return f"{found}; with a single seed, it is not known whether another one would change that."
    ends = sorted((interval.low, interval.high) if gap >= 0 else (-interval.high, -interval.low))
    verdict = "" if interval.low > 0 or interval.high < 0 else ", so these seeds do not separate them"
    method = "Welch's t" if settings == 2 else f"for any two of {settings} settings by Games and Howell"
    seeds = f"over {high['seeds']} and {low['seeds']} seeds, {method}"
    return f"{found} ({ends[0]:.2f} to {ends[1]:.2f} {seeds}{verdict})."


def _options(values: dict[str, list[Any]]) -> Iterator[str]:
    for name, several in values.items():
        # No spaces, because DVC would take them for part of a text.
        yield from ("-S", f"{name}={','.join(str(value).replace(' ', '') for value in several)}")
