"""The packed images: one uint8 array, with one table row per image beside it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddpm.runtime.arrays import save_array
from ddpm.runtime.errors import InputError


@dataclass(frozen=True)
class PackedImages:
    """All images of one data set, in a fixed order.

    images: (N, H, W, 3) uint8, RGB.
    items: N rows; columns id (str, unique), label (int, 0-based), width and height (int, pixels before preprocessing).
    summary: what was packed: source, image_size, count, class_names (list), class_counts (list),
        skipped (list of {id, reason}: what could not be used and was left out); copies (list of lists of ids of images
        with the same pixels), if there are any.
    """

    images: np.ndarray
    items: pd.DataFrame
    summary: dict[str, Any]

    def split(self, holdout: float) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of training and of held-out images, see `split_holdout`."""
        return split_holdout(self.items["id"].tolist(), holdout, self.summary.get("copies", []))

    def save(self, folder: Path) -> None:
        """Write images.npy, items.csv and summary.json, with the same bytes for the same content."""
        folder.mkdir(parents=True, exist_ok=True)
        save_array(folder / "images.npy", self.images)
        self.items.to_csv(folder / "items.csv", index=False, lineterminator="\n")
        (folder / "summary.json").write_text(
            json.dumps(self.summary, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )


def load_packed(folder: Path) -> PackedImages:
    """Read what `PackedImages.save` wrote; the images stay on disk as a read-only memory map.

    Raises:
        InputError: a file is missing or does not fit the others.
    """
    try:
        images = np.load(folder / "images.npy", mmap_mode="r")
        items = pd.read_csv(folder / "items.csv", dtype={"id": str}, keep_default_na=False)
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        labels, classes = items["label"].to_numpy(dtype=np.int64), len(summary["class_names"])
        if not isinstance(images, np.ndarray):
            raise ValueError("images.npy is an archive of arrays")
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{folder}: the packed images cannot be read ({reason}); run `dvc repro preprocess`") from None
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] != 3 or len(images) != len(items):
        raise InputError(
            f"{folder}: {images.dtype} images of shape {images.shape} do not fit {len(items)} rows of items.csv; "
            "run `dvc repro --force preprocess`"
        )
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"{folder}: the labels of {len(labels)} images do not fit {classes} classes; "
            "run `dvc repro --force preprocess`"
        )
    return PackedImages(images, items, summary)


def find_copies(images: np.ndarray, ids: Sequence[str]) -> list[list[str]]:
    """Group the ids of images, (N, H, W, 3) uint8, that have the same pixels; in the order of the images."""
    groups: dict[bytes, list[str]] = {}
    for image, name in zip(images, ids, strict=True):
        groups.setdefault(hashlib.sha256(image.tobytes()).digest(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def split_holdout(
    ids: list[str], holdout: float, copies: Sequence[Sequence[str]] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Divide images into training and held-out ones, by a hash of each id.

    The choice depends on the ids alone, so that it is the same for every seed and experiment, and hardly moves when
    images are added. All copies of an image go where the one goes whose id is first in alphabetical order: if the
    network had seen one, the loss of the others would be no held-out loss.

    Args:
        ids: of all images.
        holdout: the part to hold out, but for copies.
        copies: see `find_copies`.

    Returns:
        Two ascending int64 arrays of row numbers: training, held out. With holdout > 0 at least one image is held out.
    """
    order = sorted(range(len(ids)), key=lambda row: hashlib.sha256(ids[row].encode()).digest())
    count = max(1, round(holdout * len(ids))) if holdout > 0 else 0
    before = set(order[:count])
    heldout, rows = set(before), {name: row for row, name in enumerate(ids)}
    groups = [{rows[name] for name in group} for group in copies]
    for group, names in zip(groups, copies, strict=True):
        heldout = heldout | group if rows[min(names)] in before else heldout - group
    if before and not heldout:  # all of it were copies of training images
        heldout = before.union(*(group for group in groups if group & before))
    return tuple(np.array(sorted(side), dtype=np.int64) for side in (set(order) - heldout, heldout))  # type: ignore[return-value]
