"""Figures of a comparison, and pictures of the same seeds; each shows runs of one protocol."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image, ImageDraw, ImageFont

from ddpm.data.pictures import save_png
from ddpm.reporting.figures import default_style, save

SIZE, DPI = (6.4, 4.0), 135
MARKERS = "osD^vP*X"
GAP = 2  # pixels between the images of a grid, see pictures.grid
COLUMNS = 8  # of the grid that the sample stage writes
TEXT, MARGIN = 15, 8  # pixels: height of the letters, and white around them


@default_style()
def save_by_epochs(cells: pd.DataFrame, quick: Mapping[str, pd.DataFrame], path: Path) -> bool:
    """Draw FID against epochs, a line per schedule; returns whether there were the two points that it takes.

    Args:
        cells: see `cells.cells`; of one setting.
        quick: by schedule, columns quick/epoch and quick/fid.
        path: the PNG to write.
    """
    if cells["epochs"].nunique() < 2:
        return False
    figure, axes = _figure("epochs")
    for schedule, line in cells.sort_values("epochs").groupby("schedule"):
        _points(axes, line, "epochs", _colour(schedule, cells), str(schedule))
    for schedule, curve in quick.items():
        name, colour = f"{schedule}, quick scores while training", _colour(schedule, cells)
        axes.plot(curve["quick/epoch"], curve["quick/fid"], ":", color=colour, linewidth=1, label=_plain(name))
    curves = [curve.rename(columns={"quick/fid": "fid"}) for curve in quick.values()]
    _finish(figure, axes, pd.concat([cells, *curves]), path)
    return True


@default_style()
def save_by_hours(cells: pd.DataFrame, path: Path) -> bool:
    """Draw FID against hours of training, a colour per schedule, a mark per device; returns whether it could.

    Args:
        cells: see `cells.cells`; sampled in one way.
        path: the PNG to write.
    """
    known = cells.dropna(subset=["hours"])
    if len(known) < 2:
        return False
    figure, axes = _figure("hours of training")
    devices = sorted(set(known["device"]))
    for (schedule, device), line in known.sort_values("hours").groupby(["schedule", "device"]):
        mark = MARKERS[devices.index(str(device)) % len(MARKERS)]
        _points(axes, line, "hours", _colour(schedule, cells), f"{schedule}, {device}", mark, "")
    axes.set_xlim(left=0)
    _finish(figure, axes, known, path)
    return True


@default_style()
def save_by_steps(lines: Sequence[tuple[str, pd.DataFrame]], path: Path) -> None:
    """Draw FID against sampling steps, a line per sampler and its options.

    Args:
        lines: names, and cells of one model that differ in their steps alone.
        path: the PNG to write.
    """
    figure, axes = _figure("sampling steps")
    for index, (name, line) in enumerate(lines):
        _points(axes, line.sort_values("steps"), "steps", f"C{index % 10}", name, MARKERS[index % len(MARKERS)])
    cells = pd.concat([line for _, line in lines])
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(set(cells["steps"])), [f"{steps:g}" for steps in sorted(set(cells["steps"]))])
    axes.minorticks_off()
    _finish(figure, axes, cells, path)


def save_same_seeds(rows: Sequence[tuple[str, Path]], path: Path) -> None:
    """Put the first rows of grids below each other, each under its name.

    Args:
        rows: names, and grids as the sample stage writes them (reports/samples/grid.png).
        path: the PNG to write.
    """
    # Pixel by pixel, where a figure would scale the images; the letters are those of the figures.
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", TEXT)
    strips = [(name, first_row(np.array(Image.open(grid, formats=["PNG"]).convert("RGB")))) for name, grid in rows]
    width = max(max(strip.shape[1], int(font.getlength(name))) for name, strip in strips)
    heights = [TEXT + 2 * MARGIN + strip.shape[0] for _, strip in strips]
    canvas = Image.new("RGB", (width + 2 * MARGIN, sum(heights) + MARGIN), "white")
    draw, top = ImageDraw.Draw(canvas), 0
    for (name, strip), height in zip(strips, heights, strict=True):
        draw.text((MARGIN, top + MARGIN), name, fill="black", font=font)
        canvas.paste(Image.fromarray(strip), (MARGIN, top + TEXT + 2 * MARGIN))
        top += height
    save_png(np.array(canvas), path)


def first_row(grid: np.ndarray) -> np.ndarray:
    """The first row of images of a grid, (H, W, 3) uint8."""
    return grid[: (grid.shape[1] + GAP) // COLUMNS - GAP]


def _figure(quantity: str) -> tuple[Figure, Axes]:
    figure = Figure(SIZE, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=quantity, ylabel="FID (lower is better)")
    axes.grid(alpha=0.3)
    return figure, axes


def _points(axes: Axes, line: pd.DataFrame, x: str, colour: str, name: str, mark: str = "o", style: str = "-") -> None:
    below, above = (line["fid"] - line["fid_low"]).clip(0), (line["fid_high"] - line["fid"]).clip(0)
    name = _plain(name)
    axes.errorbar(line[x], line["fid"], [below, above], fmt=mark + style, color=colour, capsize=3, label=name)


def _colour(schedule: object, cells: pd.DataFrame) -> str:
    return f"C{sorted(set(cells['schedule'])).index(str(schedule)) % 10}"


def _finish(figure: Figure, axes: Axes, shown: pd.DataFrame, path: Path) -> None:
    """Add the legend, choose the scale, and save; `shown`: column fid of all points."""
    if shown["fid"].max() > 4 * shown["fid"].min() > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    handles, names = axes.get_legend_handles_labels()
    # Points before other lines, which matplotlib puts first.
    order = sorted(range(len(names)), key=lambda index: isinstance(handles[index], Line2D))
    axes.legend([handles[index] for index in order], [names[index] for index in order], fontsize="small")
    save(figure, path)


def _plain(name: str) -> str:
    """A name in a legend, where $ would begin a formula, and a leading _ hide it."""
    return name.replace("$", r"\$").lstrip("_")
