"""Numbers and names as Markdown."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ddpm.evaluation.verdict import FLATTERING
from ddpm.reporting.comparison.cells import marks
from ddpm.reporting.comparison.names import epochs_name, join, label, training_name
from ddpm.reporting.report import plain

MARKS = {"best": "**{}**", "tied": "≈ {}", "": "{}"}
NOTHING = "–"
REAL = "real images as samples"
OTHERS = {"kid": "KID × 1000"} | {name: name for name in ("coverage", "recall", "density", "precision", "memorisation")}


def span(low: float, high: float) -> str:
    """Two ends of a range, or what both are."""
    ends = f"{low:.2f}", f"{high:.2f}"
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def fid_table(cells: pd.DataFrame) -> str:
    """FID by schedule (rows) and epochs (columns), the best of them marked as far as the intervals show."""
    texts = [MARKS[mark].format(_score(cell, "fid")) for mark, cell in zip(marks(cells), _records(cells), strict=True)]
    grid = cells.assign(text=texts).pivot(index="schedule", columns="epochs", values="text").fillna(NOTHING)
    rows = [[plain(schedule), *line] for schedule, line in zip(grid.index, grid.to_numpy().tolist(), strict=True)]
    return _table(["FID", *map(epochs_name, sorted(set(cells["epochs"])))], rows)


def other_scores(cells: pd.DataFrame, settings: Sequence[str]) -> str:
    """The scores beside FID and the time of training, a row per cell; the last has the mean scores of real images."""
    known = {name: title for name, title in OTHERS.items() if cells[name].notna().any()}
    rows = [
        [
            plain(join(training_name(cell), label(cell, settings))),
            *(_score(cell, name) for name in known),
            NOTHING if pd.isna(cell["hours"]) else f"{_hours(cell['hours'])} on {plain(cell['device'])}",
        ]
        for cell in _records(cells)
    ]
    floors = {f"{name}_floor": name for name in known}
    real = cells[list(floors)].mean().rename(floors).to_dict()
    if any(map(pd.notna, real.values())):
        unknown = {f"{name}{end}": float("nan") for name in known for end in ("_low", "_high", "_floor")}
        rows.append([REAL, *(_score({**real, **unknown, "seeds": 1}, name) for name in known), NOTHING])
    return _table(["run", *known.values(), "training"], rows)


def _records(cells: pd.DataFrame) -> list[dict[Any, Any]]:
    return cells.to_dict("records")


def _score(cell: dict[Any, Any], name: str) -> str:
    value, low, high = (cell[part] * (1000 if name == "kid" else 1) for part in (name, f"{name}_low", f"{name}_high"))
    if pd.isna(value):
        return NOTHING
    interval = "" if pd.isna(low) or pd.isna(high) else f" ({low:.2f} to {high:.2f})"
    above = name in FLATTERING and value > cell[f"{name}_floor"]  # false where the floor is not known
    warned = f", above photographs' {cell[f'{name}_floor']:.2f}: blur or too little variety" * above
    return f"{value:.2f}{interval}{warned}" + (
        f", {cell['seeds']} seeds" if cell["seeds"] > 1 and name == "fid" else ""
    )


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
