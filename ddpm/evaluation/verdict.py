"""What the scores show together, in sentences: the first lines of a report."""

import math
from typing import Any

FLATTERING = ("precision", "density")  # above real photographs' own: blur or too little variety


def verdict(scores: dict[str, Any]) -> list[str]:
    """State what the scores of a model show, the gravest first; "as good as photographs" only where all of them agree.

    Args:
        scores: as `results.write` leaves them in reports/scores/scores.json; older ones may lack coverage and density.
    """
    distance = _distance(scores)
    judged = (_copies(scores), distance, flattering(scores["floor"]), None if distance else _unknown(scores))
    return [sentence for sentence in judged if sentence] or [
        "No score distinguishes these samples from real photographs: they are as good as photographs by this protocol."
    ]


def flattering(floor: dict[str, Any] | None) -> str | None:
    """Name precision and density for what they are where they are above those of real images."""
    known = (floor or {"scores": {}})["scores"]
    above = [name for name in FLATTERING if name in known and known[name]["model"] > known[name]["real_high"]]
    if not above:
        return None
    words = " and ".join(f"{name} {known[name]['model']:.2f} ({known[name]['real']:.2f})" for name in above)
    return (
        f"Flattering: {words} above real photographs' own, in brackets: these samples lie nearer to the middle of "
        "the data than photographs do, which is blur or too little variety and no quality."
    )


def _copies(scores: dict[str, Any]) -> str | None:
    ratio = scores["scores"].get("memorisation")
    if not ratio or ratio["high"] >= 1:
        return None
    times = f"{1 / ratio['value']:.3g}" if ratio["value"] > 1e-2 else "more than 100"
    return (
        f"Copies: the closest samples are {times} times nearer to training images than "
        "new photographs are; no other score means anything before this is looked at."
        if ratio["value"] < 0.5
        else f"Perhaps copies: the closest samples are nearer to training images than new photographs are "
        f"({ratio['value']:.2f} of their distance); look at the pairs below."
    )


def _unknown(scores: dict[str, Any]) -> str | None:
    """Copies have good scores: where these are good, silence about copies would pass for praise."""
    if scores["scores"].get("memorisation"):
        return None
    reason = scores.get("no_memorisation") or "these scores lack memorisation"
    return f"Perhaps copies, whose scores are good: whether these are, is not known; {reason}."


def _distance(scores: dict[str, Any]) -> str | None:
    """How far from photographs, by FID and by the part of them that the samples cover."""
    if not scores["floor"]:
        return "Not comparable: there are too few real images to know what photographs would score."
    floor = scores["floor"]["scores"]
    fid, coverage, recall = floor["fid"], floor.get("coverage"), floor["recall"]
    less = [covered for covered in (coverage, recall) if covered and covered["model"] < covered["real_low"]]
    if fid["model"] <= fid["real_high"] and not less:
        return None
    times = fid["model"] / fid["real"] if fid["real"] else math.inf  # identical images throughout
    covers = (
        f"; they cover {coverage['model']:.0%} of the photographs (photographs {coverage['real']:.0%})"
        if coverage
        else ""
    )
    far = (
        "Far from photographs"
        if times > 3
        else "Not yet photographs"
        if fid["model"] > fid["real_high"]
        else "Too little variety"
    )
    return f"{far}: FID {fid['model']:.1f}, where as many photographs score {fid['real']:.1f}{covers}."
