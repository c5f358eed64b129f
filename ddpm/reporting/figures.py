"""Figures by matplotlib, with the same bytes for the same data, whatever the user's own settings of matplotlib are."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

EDGE = 10  # pixels around a grid of images


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


def label_grid(picture: np.ndarray, names: Sequence[str], titles: Sequence[str] = ()) -> Figure:
    """Put a name to the left of each row of a grid of images, and a title above each column.

    One pixel of the grid is one pixel of the file.

    Args:
        picture: (H, W, 3) uint8, see `pictures.grid`.
        names: of the rows; a few words.
        titles: of the columns; none for no titles.
    """
    height, width, _ = picture.shape
    left, top, dpi = 24 + 8 * max(map(len, names)), EDGE + (16 if titles else 0), 100
    full_width, full_height = left + width + EDGE, top + height + EDGE
    figure = Figure((full_width / dpi, full_height / dpi), dpi=dpi)
    figure.figimage(picture, left, EDGE)
    for row, name in enumerate(names):
        middle = EDGE + height - (row + 0.5) * height / len(names)
        figure.text((left - 8) / full_width, middle / full_height, name, ha="right", va="center", fontsize=9)
    for column, title in enumerate(titles):
        middle = left + (column + 0.5) * width / len(titles)
        figure.text(middle / full_width, 1 - (top - 5) / full_height, title, ha="center", va="bottom", fontsize=8)
    return figure


def save_photographs(figure: Figure, path: Path) -> None:
    """Write a PNG of 256 colours, dithered: a third of the size of full colour, and hard to distinguish from it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    full_colour = io.BytesIO()
    figure.savefig(full_colour)
    picture = Image.open(full_colour).convert("RGB")
    # One pixel in sixteen settles the palette as well as all of them, and in a thirtieth of the time.
    few = picture.resize((picture.width // 4, picture.height // 4), Image.Resampling.NEAREST)
    palette = few.quantize(256, kmeans=1)
    picture.quantize(256, palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
