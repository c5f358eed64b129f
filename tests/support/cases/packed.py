"""data/processed, changed behind DVC's back."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.cases.case import Case, Place
from tests.support.cases.models import Evil, unharmed

FOLDER = Path("data/processed")
IMAGES, ITEMS, SUMMARY = FOLDER / "images.npy", FOLDER / "items.csv", FOLDER / "summary.json"


def packed(change: Callable[[], object] = lambda: None, count: int = 6, size: int = 16) -> Callable[[Place], None]:
    """Packed images for the stage `train`, then changed."""

    def prepare(place: Place) -> None:
        import pandas as pd

        from ddpm.data.dataset import PackedImages

        place.set("data.image_size", 16)
        place.set("device", "cpu")
        place.set("tracking.enabled", False)
        labels = [number % 2 for number in range(count)]
        items = pd.DataFrame({"id": [f"i{n}" for n in range(count)], "label": labels, "width": 9, "height": 9})
        summary = {
            "source": "folder",
            "count": count,
            "class_names": ["a", "b"],
            "class_counts": [count // 2] * 2,
            "skipped": [],
        }
        PackedImages(np.zeros((count, size, size, 3), np.uint8), items, summary).save(FOLDER)
        change()

    return prepare


def pickled() -> None:
    np.save(IMAGES, np.array([Evil()], dtype=object), allow_pickle=True)


def zipped() -> None:
    with IMAGES.open("wb") as stream:
        np.savez(stream, images=np.zeros((6, 16, 16, 3), np.uint8))


def claims_a_terabyte() -> None:
    with IMAGES.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 16, 16, 3)}
        )


def without_names() -> None:
    summary = json.loads(SUMMARY.read_text())
    del summary["class_names"]
    SUMMARY.write_text(json.dumps(summary))


def shape(*sizes: int) -> Callable[[], object]:
    return lambda: np.save(IMAGES, np.zeros(sizes, np.uint8))


PACKED = [
    Case(
        "not there",
        lambda place: None,
        (
            "data/processed: the packed images cannot be read ([Errno 2] No such file or directory: "
            "'data/processed/images.npy'); run `dvc repro preprocess`"
        ),
        run="train",
    ),
    Case(
        "an empty `images.npy`",
        packed(lambda: IMAGES.write_bytes(b"")),
        ("data/processed: the packed images cannot be read (…); run `dvc repro preprocess`"),
        run="train",
    ),
    Case(
        "an `images.npy` cut short",
        packed(lambda: IMAGES.write_bytes(IMAGES.read_bytes()[:-1])),
        ("data/processed: the packed images cannot be read (…); run `dvc repro preprocess`"),
        run="train",
    ),
    Case(
        "a terabyte by its header",
        packed(claims_a_terabyte),
        ("data/processed: the packed images cannot be read (…); run `dvc repro preprocess`"),
        run="train",
    ),
    Case(
        "a pickle with code in it",
        packed(pickled),
        ("data/processed: the packed images cannot be read (…); run `dvc repro preprocess`"),
        run="train",
        check=unharmed,
    ),
    Case(
        "a zip archive of arrays",
        packed(zipped),
        (
            "data/processed: the packed images cannot be read (images.npy is an archive of arrays); run `dvc "
            "repro preprocess`"
        ),
        run="train",
    ),
    Case(
        "grey images",
        packed(shape(6, 16, 16)),
        (
            "data/processed: uint8 images of shape (6, 16, 16) do not fit 6 rows of items.csv; run `dvc repro "
            "--force preprocess`"
        ),
        run="train",
    ),
    Case(
        "fewer images than rows",
        packed(shape(5, 16, 16, 3)),
        (
            "data/processed: uint8 images of shape (5, 16, 16, 3) do not fit 6 rows of items.csv; run `dvc repro "
            "--force preprocess`"
        ),
        run="train",
    ),
    Case(
        "images of another size",
        packed(size=8),
        ("data/processed: holds images of 8 pixels, data.image_size is 16; run `dvc repro`"),
        run="train",
    ),
    Case(
        "no image at all",
        packed(count=0),
        ("data/processed: the labels of 0 images do not fit 2 classes; run `dvc repro --force preprocess`"),
        run="train",
    ),
    Case(
        "an empty `items.csv`",
        packed(lambda: ITEMS.write_bytes(b"")),
        ("data/processed: the packed images cannot be read (…); run `dvc repro preprocess`"),
        run="train",
    ),
    Case(
        "an `items.csv` without labels",
        packed(lambda: ITEMS.write_text("id\n" + "x\n" * 6)),
        ("data/processed: the packed images cannot be read (no 'label'); run `dvc repro preprocess`"),
        run="train",
    ),
    Case(
        "a label that is no class",
        packed(lambda: ITEMS.write_text("id,label\n" + "x,2\n" * 6)),
        ("data/processed: the labels of 6 images do not fit 2 classes; run `dvc repro --force preprocess`"),
        run="train",
    ),
    Case(
        "a label that is no number",
        packed(lambda: ITEMS.write_text("id,label\n" + "x,y\n" * 6)),
        ("data/processed: the packed images cannot be read (…); run `dvc repro preprocess`"),
        run="train",
    ),
    Case(
        "a `summary.json` that is no JSON",
        packed(lambda: SUMMARY.write_text("{")),
        (
            "data/processed: the packed images cannot be read (Expecting property name enclosed in double quotes:"
            " line 1 column 2 (char 1)); run `dvc repro preprocess`"
        ),
        run="train",
    ),
    Case(
        "a `summary.json` that is a list",
        packed(lambda: SUMMARY.write_text("[]")),
        ("data/processed: the packed images cannot be read (…); run `dvc repro preprocess`"),
        run="train",
    ),
    Case(
        "a `summary.json` without classes",
        packed(without_names),
        ("data/processed: the packed images cannot be read (no 'class_names'); run `dvc repro preprocess`"),
        run="train",
    ),
    Case(
        "one image, and that is held out",
        packed(count=1),
        ("data.holdout: 0.1 leaves none of 1 images for training; lower it, or add images"),
        run="train",
    ),
]
