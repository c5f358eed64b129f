"""What `benchmarks.quality.recipe` found, as a table and as a figure: quality against cost."""

import json
import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks import whereabouts
from benchmarks.changes import listed
from ddpm.config import flatten
from ddpm.evaluation.intervals import from_blocks
from ddpm.reporting.figures import default_style, save
from ddpm.reporting.report import EXTRACTOR_NOTES

Row = dict[str, Any]

SMALL_GPU = 12e9  # bytes of memory
NONE = "No trial was measured yet: `python -m benchmarks.quality.recipe search`.\n"


def score(row: Row) -> float:
    """FID; infinite where the trial failed."""
    return math.inf if "failed" in row else row["scores"]["fid"]["value"]


def pages(rows: list[Row], params: dict[str, Any]) -> str:
    """All searches in Markdown, newest first: each on one machine, from one params.yaml, with one number of samples.

    Args:
        rows: the trials.
        params: those of params.yaml, on top of which the commands repeat the best trials.
    """
    searches = [section(list(of), flatten(params)) for of in reversed(by_search(rows).values())]
    return "# The recipe: quality against cost\n\n" + ("\n".join(searches) or NONE)


def by_search(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each search, the newest search last."""
    searches: dict[str, list[Row]] = {}
    for row in rows:
        searches.setdefault(row["search"], []).append(row)
    return searches


def section(rows: list[Row], params: dict[str, Any]) -> str:
    """One search: its protocol, its trials, and the commands that repeat the best of them."""
    scored = [row for row in rows if "failed" not in row]
    lines = [f"## {rows[-1]['machine']['device']}, {len(rows)} trials", "", whereabouts(rows[-1]["machine"]), ""]
    if not scored:
        return "\n".join([*lines, f"None has a score; the first one failed with: {rows[0]['failed']}", ""])
    extractor, floor = scored[0]["extractor"], scored[0]["floor"]
    lines += [
        f"FID of {scored[0]['samples']:,} samples against {scored[0]['reference_images']:,} images, "
        f"**{extractor} features**. {EXTRACTOR_NOTES[extractor]}",
        "",
        f"Floor: {floor['images']:,} real images in the samples' place score {floor['scores']['fid']['real']:.2f}; the "
        "column `same n` has as many samples against the same images, for comparison with it."
        if floor
        else "There are too few real images for a floor.",
        "",
        "In brackets are 95 % intervals for another draw of samples. One training each: what another seed of it would "
        "change is shown by the trials with several seeds alone.",
        "",
        "| minutes | seed | changed | epochs | M parameters | images/s | GPU memory | FID | same n | KID × 1000 |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_line(row) for row in sorted(rows, key=lambda row: (row["minutes"], score(row)))),
        "",
        *_seeds(scored),
    ]
    lines += _winner("The best of the longest budget", scored, params)
    small = [row for row in scored if row["peak_memory"] and row["peak_memory"] <= SMALL_GPU]
    lines += _winner("The best of those that took at most 12 GB of GPU memory", small, params) if small else []
    return "\n".join(lines)


@default_style()
def draw(rows: list[Row], path: Path) -> None:
    """Draw FID against minutes of the newest search: each trial, the best of each budget, and the floor."""
    if not (rows := [row for row in list(by_search(rows).values())[-1] if "failed" not in row] if rows else []):
        return
    figure = Figure((6.4, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot([row["minutes"] for row in rows], [score(row) for row in rows], "o", color="C7", alpha=0.6, label="trial")
    budgets = sorted({row["minutes"] for row in rows})
    best = [min((row for row in rows if row["minutes"] == budget), key=score) for budget in budgets]
    fids = [row["scores"]["fid"] for row in best]
    low, high = ([abs(fid[end] - fid["value"]) for fid in fids] for end in ("low", "high"))
    axes.errorbar(budgets, [fid["value"] for fid in fids], [low, high], fmt="o-", color="C0", label="best", capsize=3)
    if floor := rows[0]["floor"]:
        label = f"floor: {floor['images']} real images"
        axes.axhline(floor["scores"]["fid"]["real"], ls="--", color="k", label=label)
    axes.set(xlabel="minutes of training", ylabel=f"FID ({rows[0]['extractor']} features)", xscale="log", yscale="log")
    axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axes.minorticks_off()
    number_logarithmic(axes.yaxis)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(rows[0]["machine"]["device"])
    save(figure, path)


def number_logarithmic(axis: Axis) -> None:
    """Write enough plain numbers at an axis that may not even span a factor of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.set_major_formatter("{x:g}")


def _line(row: Row) -> str:
    about = f"| {row['minutes']:g} | {row['seed']} | {listed(row['changes'])} |"
    if "failed" in row:
        return f"{about} – | – | – | – | failed: {row['failed']} | – | – |"
    fid, kid, floor = row["scores"]["fid"], row["scores"]["kid"], row["floor"]
    cells = [
        row["epochs"],
        f"{row['parameters'] / 1e6:.1f}",
        f"{row['images_per_second']:.0f}",
        f"{row['peak_memory'] / 1e9:.1f} GB" if row["peak_memory"] else "–",
        f"{fid['value']:.2f} [{fid['low']:.2f}, {fid['high']:.2f}]",
        f"{floor['scores']['fid']['model']:.2f}" if floor else "–",
        f"{1000 * kid['value']:.2f} ± {1000 * kid['error']:.2f}",
    ]
    return " | ".join([about[:-2], *map(str, cells)]) + " |"


def _seeds(rows: list[Row]) -> list[str]:
    """Mean and interval over seeds, of what was trained with several."""
    groups: dict[tuple[float, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["minutes"], listed(row["changes"])), []).append(row)
    lines = []
    for (minutes, changes), same in groups.items():
        if len(same) > 1:
            mean = from_blocks(np.array([score(row) for row in same]))
            lines += [
                f"{minutes:g} minutes, {changes}: FID {mean.value:.2f} [{mean.low:.2f}, {mean.high:.2f}] is the mean "
                f"over {len(same)} seeds, with its 95 % interval by Student's t.",
                "",
            ]
    return lines


def _winner(title: str, rows: list[Row], params: dict[str, Any]) -> list[str]:
    longest = max(row["minutes"] for row in rows)
    row = min((row for row in rows if row["minutes"] == longest), key=score)
    settings = {name: value for name, value in flatten(row["params"]).items() if not name.startswith("tracking.")}
    words = [f"{name}={_word(value)}" for name, value in settings.items() if value != params.get(name)]
    command = shlex.join(["dvc", "exp", "run", *(part for word in words for part in ("-S", word))])
    return [f"{title} ({longest:g} minutes):", "", "```sh", command, "```", ""]


def _word(value: Any) -> str:
    """A value as DVC takes it, without spaces, so that a list is one word."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
