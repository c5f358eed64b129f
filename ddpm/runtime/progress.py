"""The one progress bar: lively on a terminal, a line a minute in a log file."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(total: int | None, desc: str, **options: Any) -> "tqdm[Any]":
    """Open a bar; call `update` with what is done.

    Args:
        total: amount of work, in images unless `unit` says otherwise; None if it is not known.
        desc: what is being done, in a word.
        options: those of tqdm.
    """
    interval = 0.2 if sys.stderr.isatty() else 60.0
    options = {
        "total": total,
        "desc": desc,
        "unit": "image",
        "mininterval": interval,
        "maxinterval": interval,
        "dynamic_ncols": True,
    } | options
    return tqdm(**options)


def duration(seconds: float) -> str:
    """Seconds for people, to two units at most: "40 s", "12 min", "2 h 10 min", "3 d 4 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
