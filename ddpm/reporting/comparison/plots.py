"""Figures of a comparison, and pictures of the same seeds; each shows runs of one protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

HEIGHT, WIDTHS, DPI = 4.0, (6.4, 9.6, 12.8), 135  # inches, by the number of panels; dots per inch
# Score, label, and by how much it is multiplied. The first is drawn always, the others where they are known.
PANELS = (("fid", "FID, lower is better", 1), ("kid", "KID × 1000, lower is better", 1000), ("coverage", "coverage", 1))
FLOOR = "photographs in their place"
MARKERS = "osD^vP*X"
GAP = 2  # pixels between the images of a grid, see pictures.grid
COLUMNS = 8  # of the grid that the sample stage writes
TEXT, MARGIN = 15, 8  # pixels: height of the letters, and white around them


@default_style()
def save_by_epochs(cells: pd.DataFrame, quick: Mapping[str, pd.DataFrame], path: Path) -> bool:
    """Draw the scores against epochs, a line per schedule; returns whether there were the two points that it takes.

    Args:
        cells: see `cells.cells`; of one setting.
        quick: by schedule, columns quick/epoch and quick/fid.
        path: the PNG to write.
    """
    if cells["epochs"].nunique() < 2:
        return False
    panels = _panels("epochs", cells)
    for schedule, line in cells.sort_values("epochs").groupby("schedule"):
        panels.points(line, "epochs", _colour(schedule, cells), str(schedule))
    for schedule, curve in quick.items():
        name, colour = f"{schedule}, quick scores while training", _colour(schedule, cells)
        panels.first.plot(curve["quick/epoch"], curve["quick/fid"], ":", color=colour, linewidth=1, label=_plain(name))
    panels.save(path)
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
    panels = _panels("hours of training", known, count=1)
    devices = sorted(set(known["device"]))
    for (schedule, device), line in known.sort_values("hours").groupby(["schedule", "device"]):
        mark = MARKERS[devices.index(str(device)) % len(MARKERS)]
        panels.points(line, "hours", _colour(schedule, cells), f"{schedule}, {device}", mark, "")
    panels.first.set_xlim(left=0)
    panels.save(path)
    return True


@default_style()
def save_by_steps(lines: Sequence[tuple[str, pd.DataFrame]], path: Path) -> None:
    """Draw the scores against sampling steps, a line per sampler and its options.

    Args:
        lines: names, and cells of one model that differ in their steps alone.
        path: the PNG to write.
    """
    cells = pd.concat([line for _, line in lines])
    panels, ticks = _panels("sampling steps", cells), sorted(set(cells["steps"]))
    for index, (name, line) in enumerate(lines):
        panels.points(line.sort_values("steps"), "steps", f"C{index % 10}", name, MARKERS[index % len(MARKERS)])
    for axes in panels.axes.values():
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{steps:g}" for steps in ticks])
        axes.minorticks_off()
    panels.save(path)


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


@dataclass(frozen=True)
class _Panels:
    """Axes side by side, one for each score."""

    figure: Figure
    axes: dict[str, Axes]

    @property
    def first(self) -> Axes:
        """That of the FID."""
        return next(iter(self.axes.values()))

    def points(self, line: pd.DataFrame, x: str, colour: str, name: str, mark: str = "o", style: str = "-") -> None:
        """Draw cells with the intervals of their scores, joined by a line."""
        for score, _, scale in PANELS:
            if score in self.axes:
                value, low, high = (scale * line[f"{score}{end}"] for end in ("", "_low", "_high"))
                ends = [(value - low).clip(0), (high - value).clip(0)]
                axes, label = self.axes[score], _plain(name)
                axes.errorbar(line[x], value, ends, fmt=mark + style, color=colour, capsize=3, label=label)

    def save(self, path: Path) -> None:
        """Choose the scale, add the legend, and write the file."""
        low, high = self.first.dataLim.intervaly
        if high > 4 * low > 0:
            self.first.set_yscale("log")
            self.first.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            self.first.yaxis.set_major_formatter("{x:g}")
            self.first.yaxis.set_minor_formatter(NullFormatter())
        handles, names = self.first.get_legend_handles_labels()
        # Points before other lines, which matplotlib puts first.
        order = sorted(range(len(names)), key=lambda index: isinstance(handles[index], Line2D))
        self.first.legend([handles[index] for index in order], [names[index] for index in order], fontsize="small")
        save(self.figure, path)


def _panels(quantity: str, cells: pd.DataFrame, count: int = len(PANELS)) -> _Panels:
    """An empty panel for each of the first `count` scores that is known, with the mean score of real images in it."""
    known = [panel for panel in PANELS[:count] if panel[0] == "fid" or cells[panel[0]].notna().any()]
    figure = Figure((WIDTHS[len(known) - 1], HEIGHT), dpi=DPI, layout="constrained")
    panels = {}
    for axes, (score, label, scale) in zip(np.ravel(figure.subplots(1, len(known))), known, strict=True):
        axes.set(xlabel=quantity, ylabel=label)
        axes.grid(alpha=0.3)
        if np.isfinite(floor := scale * cells[f"{score}_floor"].mean()):
            axes.axhline(floor, color="grey", linestyle="--", linewidth=1, label=FLOOR)
        panels[score] = axes
    return _Panels(figure, panels)


def _colour(schedule: object, cells: pd.DataFrame) -> str:
    return f"C{sorted(set(cells['schedule'])).index(str(schedule)) % 10}"


def _plain(name: str) -> str:
    """A name in a legend, where $ would begin a formula, and a leading _ hide it."""
    return name.replace("$", r"\$").lstrip("_")
