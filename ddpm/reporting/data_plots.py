"""Pictures of the data set: examples, class sizes, original sizes and colours."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from ddpm.data.dataset import PackedImages
from ddpm.data.pictures import grid
from ddpm.reporting.figures import default_style, label_grid, save, save_photographs

ROWS, COLUMNS = 20, 8  # of the picture of examples
THUMBNAIL = 64  # side of an example, pixels
SWATCH_ROWS = 26  # classes below one another before a new column starts
NAMED_CLASSES = 60  # up to this many bars have room for a name
BINS = 40  # bars of a histogram, at most


@default_style()
def save_all(packed: PackedImages, folder: Path) -> None:
    """Write classes.png, class_counts.png, sizes.png and mean_colour.png, the same bytes for the same images.

    And skipped.txt, with a line for each file that was left out, or one that says that there is none: DVC warns of an
    empty output at each run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{image['id']}: {image['reason']}\n" for image in packed.summary.get("skipped", [])]
    (folder / "skipped.txt").write_text("".join(lines) or "All files were used.\n", encoding="utf-8")
    save_photographs(_classes(packed), folder / "classes.png")
    save(_class_counts(packed), folder / "class_counts.png")
    save(_sizes(packed), folder / "sizes.png")
    save(_mean_colour(packed), folder / "mean_colour.png")


def mean_colours(packed: PackedImages) -> np.ndarray:
    """Average the pixels of each class: (classes, 3) float64 in [0, 255], white for a class without images."""
    labels = packed.items["label"].to_numpy()
    count = len(packed.summary["class_names"])
    means = np.array([image.mean(axis=(0, 1)) for image in packed.images])
    totals = np.stack([np.bincount(labels, means[:, channel], count) for channel in range(3)], axis=1)
    sizes = np.bincount(labels, minlength=count)[:, None]
    return np.where(sizes > 0, totals / np.maximum(sizes, 1), 255.0)


def _classes(packed: PackedImages) -> Figure:
    """Show the first images of up to 20 classes spread over all, one row each."""
    labels = packed.items["label"].to_numpy()
    present = np.unique(labels)
    shown = present[np.linspace(0, len(present) - 1, min(ROWS, len(present))).round().astype(int)]
    names = [_short(packed.summary["class_names"][label]) for label in shown]
    rows = [_thumbnails(packed.images, np.flatnonzero(labels == label)[:COLUMNS]) for label in shown]
    return label_grid(grid(np.concatenate(rows), COLUMNS), names)


def _thumbnails(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Scale the chosen images, and fill the row with white: (COLUMNS, THUMBNAIL, THUMBNAIL, 3) uint8."""
    row = np.full((COLUMNS, THUMBNAIL, THUMBNAIL, 3), 255, dtype=np.uint8)
    for place, index in enumerate(chosen):
        row[place] = np.asarray(Image.fromarray(images[index]).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    return row


def _class_counts(packed: PackedImages) -> Figure:
    names, counts = packed.summary["class_names"], packed.summary["class_counts"]
    figure, [axes] = _axes((max(6.0, min(14.0, 2 + 0.3 * len(names))), 4.2))
    axes.bar(np.arange(len(names)), counts, color="#4c78a8", width=0.8)
    axes.set_ylabel("images")
    axes.set_title(f"{sum(counts):,} images in {len(names)} classes")
    if len(names) <= NAMED_CLASSES:
        axes.set_xticks(np.arange(len(names)), [_short(name) for name in names], rotation=60, ha="right", fontsize=8)
    else:
        axes.set_xlabel("class (0-based label)")
    return figure


def _sizes(packed: PackedImages) -> Figure:
    """Draw histograms of width and height on one scale."""
    sizes = packed.items[["width", "height"]].to_numpy()
    low, high = int(sizes.min()), int(sizes.max())
    step = (high - low) // BINS + 1  # whole pixels, so that every bar stands for equally many sizes
    edges = np.arange(low, high + step + 1, step) - 0.5
    figure, plots = _axes((6.0, 5.0), rows=2)
    for axes, side, values in zip(plots, ("width", "height"), sizes.T, strict=True):
        axes.hist(values, edges.tolist(), color="#4c78a8")
        axes.set(xlabel=f"{side}, pixels", ylabel="images")
        axes.tick_params(labelbottom=True)
    margin = BINS // 10 * step  # also keeps the bar of a single size from filling the plot
    plots[0].set_xlim(low - margin, high + margin)
    plots[0].set_title("All originals have one size" if (sizes == sizes[0]).all() else "Original sizes, upright")
    return figure


def _mean_colour(packed: PackedImages) -> Figure:
    names, colours = packed.summary["class_names"], mean_colours(packed) / 255
    columns = -(-len(names) // SWATCH_ROWS)
    rows = -(-len(names) // columns)
    figure, [axes] = _axes((3.2 * columns, 0.7 + 0.24 * rows))
    for label, (name, colour) in enumerate(zip(names, colours, strict=True)):
        column, row = divmod(label, rows)
        axes.add_patch(Rectangle((column, -row - 0.9), 0.28, 0.8, color=tuple(colour)))
        axes.text(column + 0.32, -row - 0.5, _short(name), va="center", fontsize=8)
    axes.set(xlim=(0, columns), ylim=(-rows, 0), title="Mean colour of each class")
    axes.axis("off")
    return figure


def _axes(size: tuple[float, float], rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a figure of `size` inches with plots below one another, without pyplot and its global state."""
    figure = Figure(size, dpi=100, layout="constrained")
    plots = list(figure.subplots(rows, sharex=True, squeeze=False)[:, 0])
    for axes in plots:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, plots


def _short(name: str, limit: int = 26) -> str:
    # matplotlib reads $...$ as a formula.
    return (name if len(name) <= limit else name[: limit - 1] + "…").replace("$", r"\$")
