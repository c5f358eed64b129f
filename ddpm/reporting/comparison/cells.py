"""Which runs may be compared, and what each of their settings scored."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ddpm.evaluation.intervals import from_blocks

# What a score depends on beside the model: only runs that agree in all of these are compared.
PROTOCOL = ["extractor", "weights", "data", "reference", "samples"]
SCORES = ("fid", "kid", "coverage", "recall", "density", "precision", "memorisation")
AXES = ["schedule", "epochs"]  # rows and columns of a table
SAMPLER = ["params.sample.sampler", "params.sample.steps"]  # what a table is called by
# Parameters that are reported elsewhere, or decide no score.
APART = {
    *(f"params.{name}" for name in ("schedule", "epochs", "seed", "device", "train.log_every")),
    *(f"params.{name}" for name in ("sample.n", "sample.batch_size")),
}
APART_GROUPS = ("params.data.", "params.fid.", "params.tracking.")
HOLDOUT = "params.data.holdout"  # the one parameter of the data that their checksum does not cover

# Parameters and tags that a comparison asks for.
SHOWN = [
    *(f"params.{name}" for name in ("schedule", "epochs", "seed", "data.holdout", "fid.reference", "sample.n")),
    *SAMPLER,
    *(f"tags.{name}" for name in ("weights.sha256", "data.sha256", "device")),
]
SECONDS = "metrics.seconds/train"


def tidy(runs: pd.DataFrame) -> pd.DataFrame:
    """Name what a comparison asks for, of the runs that record all of it.

    Args:
        runs: see `tracking.finished.scored_runs`.

    Returns:
        Its columns and those of PROTOCOL; schedule, epochs, seed, steps; of each score s of SCORES s, s_low, s_high and
        s_floor; hours (of training) and device. Scores, hours, epochs and steps are numbers, NaN where unknown.
    """
    named = runs.reindex(columns=runs.columns.union([*SHOWN, SECONDS], sort=False)).copy()
    named[SHOWN] = named[SHOWN].astype("string")  # a column that no run has would be one of numbers
    for column in ("schedule", "seed"):
        named[column] = named[f"params.{column}"]
    named["epochs"] = pd.to_numeric(named["params.epochs"], errors="coerce")
    named["steps"] = pd.to_numeric(named["params.sample.steps"], errors="coerce")
    named["samples"] = pd.to_numeric(named["params.sample.n"], errors="coerce")
    named["weights"], named["data"] = named["tags.weights.sha256"], named["tags.data.sha256"]
    # Which images are held out is decided by how many.
    part = named["params.fid.reference"] + " (data.holdout " + named[HOLDOUT] + ")"
    named["reference"] = part.mask((named["params.fid.reference"] == "all").fillna(False), "all")
    records = named.to_dict("records")
    for score in SCORES:
        for name in _parts(score):
            named[name] = [run.get(f"metrics.{run['extractor']}/{name}", np.nan) for run in records]
    named["hours"] = named[SECONDS].astype(float) / 3600
    named["device"] = named["tags.device"].fillna("unknown device")
    named = named.dropna(subset=[*PROTOCOL, *AXES, "seed", "fid"])
    return named.astype({"epochs": int, "samples": int})


def protocols(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """Split tidy runs into those that may be compared, most runs first."""
    groups = [group for _, group in runs.groupby(PROTOCOL, sort=True)]
    return sorted(groups, key=len, reverse=True)


def settings(group: pd.DataFrame) -> list[str]:
    """The columns of parameters beside schedule, epochs and seed in which the runs differ."""
    params = [name for name in map(str, group) if name.startswith("params.") and name not in APART]
    params = [name for name in params if name == HOLDOUT or not name.startswith(APART_GROUPS)]
    return [name for name in params if group[name].nunique(dropna=False) > 1]


def newest(group: pd.DataFrame) -> pd.DataFrame:
    """Of runs with the same parameters and seed the newest: a repetition is no further seed."""
    ordered = group.sort_values("start_time", ascending=False, kind="stable")
    return ordered.drop_duplicates([*settings(group), *AXES, "seed"])


def cells(group: pd.DataFrame) -> pd.DataFrame:
    """Bring the seeds of each setting together.

    Args:
        group: runs of one protocol.

    Returns:
        One row per setting, schedule and number of epochs, newest first: these columns, seeds (how many), seed_names
        and fids (a list each, of every seed), the scores with their intervals and floors, hours (mean), device,
        start_time and training of the newest run.
    """
    by = [*settings(group), *AXES]
    kept = [*by, *(name for name in SAMPLER if name not in by), "steps", "start_time", "training"]
    scores = [name for score in SCORES for name in _parts(score)]
    rows = []
    for _, same in newest(group)[[*kept, *scores, "seed", "hours", "device"]].groupby(by, dropna=False, sort=False):
        first = same.to_dict("records")[0]
        row = {name: first[name] for name in kept} | {"seeds": len(same)}
        row |= {"seed_names": same["seed"].tolist(), "fids": same["fid"].tolist()}
        row |= {name: value for score in SCORES for name, value in _over_seeds(same, score).items()}
        rows.append(row | {"hours": same["hours"].mean(), "device": " and ".join(sorted(set(same["device"])))})
    return pd.DataFrame(rows)


def tables(cells: pd.DataFrame, settings: Sequence[str]) -> list[pd.DataFrame]:
    """Split cells into those that differ in schedule and epochs alone, most cells first, then by their settings."""
    others = [name for name in settings if name not in SAMPLER]
    ordered = cells.sort_values(["params.sample.sampler", "steps", *others, *AXES])
    if not settings:
        return [ordered]
    split = [table for _, table in ordered.groupby(list(settings), dropna=False, sort=False)]
    return sorted(split, key=len, reverse=True)


def marks(scores: pd.DataFrame) -> list[str]:
    """Mark which scores are the best, as far as their intervals show; lower is better.

    Args:
        scores: columns fid, fid_low, fid_high; an unknown end of an interval may lie anywhere.

    Returns:
        For each row "best" (the lowest, and its interval overlaps no other), "tied" (not separable from the lowest;
        the lowest itself is among them) or "". One score alone is not the best of anything.
    """
    if len(scores) < 2:
        return [""] * len(scores)
    lowest = int(scores["fid"].to_numpy().argmin())
    low, high = scores["fid_low"].fillna(-np.inf).to_numpy(), scores["fid_high"].fillna(np.inf).to_numpy()
    overlaps = (low <= high[lowest]) & (high >= low[lowest])
    mark = "tied" if overlaps.sum() > 1 else "best"
    return [mark if overlap else "" for overlap in overlaps]


def _over_seeds(runs: pd.DataFrame, score: str) -> dict[str, float]:
    """Mean over seeds and its 95 % interval by Student's t; of a single seed the score's own interval."""
    if len(runs) == 1:
        return dict(zip(_parts(score), runs[[*_parts(score)]].to_numpy(float)[0], strict=True))
    values = runs[score].to_numpy(float)
    mean = from_blocks(values)
    low = mean.low if score == "kid" else max(0.0, mean.low)  # an unbiased KID may be negative, the others cannot
    return dict(zip(_parts(score), (mean.value, low, mean.high, runs[f"{score}_floor"].mean()), strict=True))


def _parts(score: str) -> tuple[str, ...]:
    return score, f"{score}_low", f"{score}_high", f"{score}_floor"
