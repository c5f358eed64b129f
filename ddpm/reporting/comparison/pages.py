"""The comparison across experiments: tables, figures and a page of what the MLflow store holds."""

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from ddpm.reporting.comparison import plots
from ddpm.reporting.comparison.cells import PROTOCOL, SAMPLER, cells, newest, protocols, settings, tables, tidy
from ddpm.reporting.comparison.findings import findings, one_line, sweep
from ddpm.reporting.comparison.markdown import fid_table, other_scores, span
from ddpm.reporting.comparison.names import join, label, options, training_name
from ddpm.reporting.page import write_pages
from ddpm.reporting.report import plain, render
from ddpm.runtime.errors import InputError
from ddpm.runtime.paths import REPORTS
from ddpm.tracking.finished import artifact, curves

MAX_PROTOCOLS = 6  # with a section of their own; the file of numbers has all
MAX_TABLES = 8  # per protocol
MAX_LINES = 60  # of the other scores
MAX_PANELS = 4  # figures by sampling steps, a model each
MAX_ROWS = 24  # settings whose pictures are fetched
GRID = "report/samples/grid.png"


def write_comparison(runs: pd.DataFrame, folder: Path, name: str, experiment: str, condition: str) -> list[Path]:
    """Write NAME.md, .html and .csv and the pictures in NAME/; returns the three files.

    Args:
        runs: see `tracking.finished.scored_runs`.
        folder: where to; created.
        name: of the files.
        experiment: where the runs were found.
        condition: MLflow's filter by which they were chosen, or "".

    Raises:
        InputError: no run records against what it was scored.
        RunError: the store cannot be read any more.
    """
    recorded = tidy(runs)
    if recorded.empty:
        raise InputError(
            f"experiment {experiment!r}: none of {len(runs)} scored runs records all of "
            "schedule, epochs, seed, extractor, weights.sha256, data.sha256, fid.reference and sample.n; "
            "`dvc repro` makes one that does"
        )
    pictures = folder / name
    pictures.mkdir(parents=True, exist_ok=True)
    for stale in pictures.glob("protocol*.png"):
        stale.unlink()
    groups = protocols(recorded)
    markdown = render(
        {
            "name": name,
            "experiment": plain(experiment),
            "condition": plain(condition),
            "command": one_line(["python", "-m", "ddpm", "compare", *_given(name, folder, experiment, condition)]),
            "runs": len(runs),
            "unrecorded": len(runs) - len(recorded),
            "sections": [_section(group, number, pictures) for number, group in enumerate(groups[:MAX_PROTOCOLS], 1)],
            "more_sections": max(0, len(groups) - MAX_PROTOCOLS),
        },
        "comparison.md.j2",
    )
    files = [folder / f"{name}{suffix}" for suffix in (".md", ".html", ".csv")]
    write_pages(markdown, folder, name)
    _numbered(runs, groups).to_csv(files[2], index=False)
    return files


def _given(name: str, folder: Path, experiment: str, condition: str) -> list[str]:
    """The options that ask for this page."""
    options = {"--name": name, "--experiment": experiment, "--filter": condition}
    options["--out"] = "" if folder == REPORTS else str(folder)
    return [word for option, value in options.items() if value for word in (option, value)]


def _numbered(runs: pd.DataFrame, groups: list[pd.DataFrame]) -> pd.DataFrame:
    """All runs, with the number of their protocol (none: it is not recorded), and whether the page takes them in."""
    numbers = {run_id: number for number, group in enumerate(groups, 1) for run_id in group["run_id"]}
    compared = {run_id for group in groups for run_id in newest(group)["run_id"]}
    numbered = runs.copy()
    numbered.insert(0, "protocol", runs["run_id"].map(numbers).astype("Int64"))
    numbered.insert(1, "compared", runs["run_id"].isin(compared))
    return numbered.sort_values("protocol", kind="stable")


def _section(group: pd.DataFrame, number: int, pictures: Path) -> dict[str, Any]:
    """The page's section on the runs of one protocol."""
    differing, all_cells = settings(group), cells(group)
    split = tables(all_cells, differing)
    floors = group["fid_floor"].dropna()
    return {
        **{name: plain(group.iloc[0][name]) for name in PROTOCOL},
        "extractor_name": str(group.iloc[0]["extractor"]),
        "samples": f"{group.iloc[0]['samples']:,}",
        "runs": len(group),
        "repetitions": len(group) - int(all_cells["seeds"].sum()),
        "commits": group["tags.git.commit"].nunique() if "tags.git.commit" in group else 0,
        "floor": span(floors.min(), floors.max()) if len(floors) else None,
        "differing": [plain(name.removeprefix("params.")) for name in differing],
        "tables": [
            _table(table, differing, f"protocol{number}-epochs{index}.png", pictures)
            for index, table in enumerate(split[:MAX_TABLES], 1)
        ],
        "more_tables": max(0, len(split) - MAX_TABLES),
        "others": other_scores(pd.concat(split).head(MAX_LINES), differing),
        "more_others": max(0, len(all_cells) - MAX_LINES),
        "hours": _by_hours(split, differing, f"protocol{number}-hours.png", pictures),
        "steps": _by_steps(all_cells, differing, f"protocol{number}", pictures),
        "seeds": _same_seeds(group, differing, f"protocol{number}", pictures),
    }


def _table(table: pd.DataFrame, differing: list[str], name: str, pictures: Path) -> dict[str, Any]:
    quick = _quick(table)
    return {
        "title": plain(label(table.to_dict("records")[0], differing)),
        "fid": fid_table(table),
        "picture": plots.save_by_epochs(table, quick, pictures / name) and f"{pictures.name}/{name}",
        "quick": bool(quick),
        "findings": findings(table),
        "sweep": sweep(table, differing),
    }


def _by_hours(split: list[pd.DataFrame], differing: list[str], name: str, pictures: Path) -> dict[str, Any] | None:
    """The figure by hours, of all models that were sampled in the way in which most of them were."""
    ways: dict[str, list[pd.DataFrame]] = {}
    for table in split:
        way = label(table.to_dict("records")[0], [name for name in differing if name.startswith("params.sample.")])
        ways.setdefault(way, []).append(table)
    most = max(ways, key=lambda way: sum(map(len, ways[way])))
    drawn = plots.save_by_hours(pd.concat(ways[most]), pictures / name)
    return {"title": plain(most), "picture": f"{pictures.name}/{name}"} if drawn else None


def _quick(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The quick scores of the longest training of each schedule, where there are any."""
    if table["epochs"].nunique() < 2:
        return {}
    longest = table.sort_values("epochs").groupby("schedule").tail(1)
    found = {
        cell["schedule"]: curves(cell["training"], ["quick/epoch", "quick/fid"]) for cell in longest.to_dict("records")
    }
    return {schedule: curve for schedule, curve in found.items() if len(curve)}


def _by_steps(all_cells: pd.DataFrame, differing: list[str], prefix: str, pictures: Path) -> dict[str, Any]:
    """Figures of the models that were sampled with different numbers of steps."""
    sampling = [name for name in differing if name.startswith("params.sample.")]
    training = ["schedule", "epochs", *(name for name in differing if name not in sampling)]
    others = [name for name in sampling if name not in SAMPLER]
    models = []
    for _, model in all_cells.dropna(subset=["steps"]).groupby(training, dropna=False, sort=False):
        split = model.groupby(["params.sample.sampler", *others], dropna=False)
        lines = [(join(str(values[0]), *options(line.to_dict("records")[0], others)), line) for values, line in split]
        lines = [(name, line) for name, line in lines if line["steps"].nunique() > 1]
        if lines:
            cell = model.to_dict("records")[0]
            models.append((join(training_name(cell), *options(cell, training[2:])), lines))
    models.sort(key=lambda model: sum(len(line) for _, line in model[1]), reverse=True)
    shown = []
    for index, (title, lines) in enumerate(models[:MAX_PANELS], 1):
        plots.save_by_steps(lines, pictures / f"{prefix}-steps{index}.png")
        shown.append({"title": plain(title), "picture": f"{pictures.name}/{prefix}-steps{index}.png"})
    return {"models": shown, "more": max(0, len(models) - MAX_PANELS)}


def _same_seeds(group: pd.DataFrame, differing: list[str], prefix: str, pictures: Path) -> dict[str, Any] | None:
    """One picture of the first images of the newest settings, all from the seed that most settings have."""
    runs = newest(group)
    seed = runs["seed"].value_counts().sort_index().idxmax()
    runs = runs[runs["seed"] == seed]
    rows = []
    with tempfile.TemporaryDirectory() as copies:
        for run in runs.head(MAX_ROWS).to_dict("records"):
            folder = Path(copies) / run["run_id"]
            folder.mkdir()
            if grid := artifact(run["run_id"], GRID, folder):
                name = join(training_name(run), label(run, differing))
                rows.append((f"{name}, FID {run['fid']:.2f}", grid))
        if not rows:
            return None
        plots.save_same_seeds(rows, pictures / f"{prefix}-seed.png")
    return {
        "seed": plain(seed),
        "picture": f"{pictures.name}/{prefix}-seed.png",
        "rows": len(rows),
        "more": len(runs) - len(rows),
    }
