"""What a folder of photographs holds, and how long a training on them will take: for `python -m ddpm use --photos`."""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm.commands.doctor import SHORTER, predicted_cost
from ddpm.commands.estimate import planned_steps
from ddpm.config import Config
from ddpm.data.sources.folder import Folder, named_by_reason
from ddpm.data.sources.kinds import FORMATS
from ddpm.runtime.devices import choose_device, describe
from ddpm.runtime.errors import unless_too_large
from ddpm.runtime.paths import RAW
from ddpm.runtime.progress import duration, progress_bar

LONG = 3600  # seconds of training, beyond which shorter recipes are named
OPENED = 2000  # files at most whose format and size are looked up


def survey(path: Path) -> tuple[int, list[str]]:
    """Count and describe the photographs of a folder: number, classes, formats, sizes, and what is left out.

    Returns:
        The number of photographs, and the lines to print.

    Raises:
        InputError: see `Folder.find`.
    """
    found = Folder(RAW, path).find()
    counts = Counter(found.classes())
    lines = [f"{path}: {len(found.ids):,} images {_in_classes(counts)}"]
    rows = np.linspace(0, len(found.ids) - 1, min(OPENED, len(found.ids))).round().astype(int)
    kinds: Counter[str] = Counter()
    sides, damaged = [], []
    with progress_bar(len(rows), "headers") as bar:
        for name in (found.ids[row] for row in rows):
            kind, side = _header(path / name)
            bar.update()
            if not kind:
                damaged.append(name)
                continue
            kinds[kind] += 1
            sides.append(side)
    of = "" if len(rows) == len(found.ids) else f", of {len(rows):,} of them"
    if sides:
        formats = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
        lines.append(
            f"{formats}; shorter side {min(sides):,} to {max(sides):,} pixels, median {np.median(sides):,.0f}{of}"
        )
    if damaged:
        lines.append(
            f"{len(damaged):,} cannot be opened, such as {damaged[0]}; repair them, or set data.on_bad_image to skip"
        )
    if found.left_out:
        lines.append(f"{len(found.left_out):,} left out: {named_by_reason(found.left_out)}")
    return len(found.ids), lines


def forecast(config: Config, images: int) -> str:
    """Predict how long a training will take, from some steps of the real network.

    Args:
        config: its parameters.
        images: of the folder, held-out ones among them.
    """
    device = choose_device(config.device)
    config = config.model_copy(update={"device": device.type})
    cost = unless_too_large(lambda: predicted_cost(config, images, device))
    if cost is None:
        return "A training step does not fit into the memory; `python -m ddpm doctor` finds what fits."
    steps = planned_steps(config, images)
    seconds = steps * cost.step_seconds
    recipes = " or ".join(f"`python -m ddpm use {name}`" for name in SHORTER[device.type])
    return (
        f"With these parameters `train` will take about {duration(seconds)}: {config.epochs:,} epochs, {steps:,} steps "
        f"on {describe(device)}; `python -m ddpm doctor` predicts the other stages."
        + f" Shorter: {recipes}."
        * (seconds > LONG)
    )


def _in_classes(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return f"in one class, {next(iter(counts))!r}"
    (most, largest), (least, smallest) = counts.most_common(1)[0], counts.most_common()[-1]
    return f"in {len(counts):,} classes, from {smallest:,} ({least}) to {largest:,} ({most})"


def _header(file: Path) -> tuple[str, int]:
    """Format and shorter side of an image; "" and 0 where it cannot be opened."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            return image.format or "", min(image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return "", 0
