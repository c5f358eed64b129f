"""Figures by matplotlib, with the same bytes for the same data, whatever the user's own settings of matplotlib are."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure


@contextmanager
def default_style() -> Iterator[None]:
    """Draw and save with matplotlib's own settings instead of the user's; a context or a decorator."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})  # matplotlib's version would change the bytes
