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
