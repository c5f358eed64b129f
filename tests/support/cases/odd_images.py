"""Photographs that look odd and are none the worse, and what is skipped on demand."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.cases.case import Case, Place
from tests.support.cases.images import BOTH, SIZE, among, content, named, photographs, saved

TRANSPARENT = Image.new("P", (8, 8), 1)
TRANSPARENT.putpalette([0, 0, 255, 0, 255, 0])


def rotated(file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(file, exif=exif)


def animated(file: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    frames[0].save(file, save_all=True, append_images=frames[1:])


def last(place: Place) -> tuple[list[str], np.ndarray, dict]:
    """Ids, pixels of the last image, and summary of what was packed."""
    from ddpm.data.dataset import load_packed

    packed = load_packed(Path("data/processed"))
    return packed.items["id"].tolist(), packed.images[-1], packed.summary


def packs(name: str, colour: tuple[int, int, int] | None = None) -> Callable[[Place], bool]:
    """A check: the image is packed as the last one, in this colour in its middle."""

    def check(place: Place) -> bool:
        ids, pixels, _ = last(place)
        found = pixels[SIZE // 2, SIZE // 2].astype(int)
        return ids[-1] == f"rose/{name}" and bool(colour is None or np.abs(found - colour).max() <= 3)

    return check


def upright(place: Place) -> bool:
    import pandas as pd

    row = pd.read_csv("data/processed/items.csv").iloc[-1]
    return (row["width"], row["height"]) == (20, 30)


def lists_the_skipped(place: Place) -> bool:
    *_, summary = last(place)
    skipped = [{"id": "rose/x.jpg", "reason": "it is none of the known formats"}]
    stored = json.loads(Path("data/processed/summary.json").read_text())["skipped"]
    return summary["skipped"] == stored == skipped and summary["count"] == sum(summary["class_counts"]) == 5


def looping(place: Place) -> None:
    (photographs(place) / "loop").symlink_to("..")


def empty_class(place: Place) -> None:
    (photographs(place).parent / "lily").mkdir()


ODD_IMAGES = [
    Case(
        "a class folder without an image",
        empty_class,
        "it is no class",
        0,
        BOTH,
        check=lambda p: last(p)[2]["class_names"] == ["rose"],
    ),
    Case(
        "`data.on_bad_image: skip`, text renamed to .jpg",
        among("x.jpg", content(b"no image"), skip=True),
        "left out; named in `data/processed/summary.json` and `reports/explore/skipped.txt`, to which the report links",
        0,
        BOTH,
        check=lists_the_skipped,
    ),
    Case(
        "CMYK",
        among("x.jpg", saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)))),
        "converted to RGB",
        0,
        BOTH,
        check=packs("x.jpg", (0, 255, 255)),
    ),
    Case(
        "16 bits",
        among("x.png", saved(Image.fromarray(np.full((8, 8), 0x8000, np.uint16)))),
        "scaled to 8 bits",
        0,
        BOTH,
        check=packs("x.png", (128, 128, 128)),
    ),
    Case(
        "a palette with transparency",
        among("x.png", saved(TRANSPARENT, transparency=1)),
        "laid over white",
        0,
        BOTH,
        check=packs("x.png", (255, 255, 255)),
    ),
    Case("animated", among("x.gif", animated), "the first frame is taken", 0, BOTH, check=packs("x.gif", (255, 0, 0))),
    Case(
        "greyscale",
        among("x.png", saved(Image.new("L", (8, 8), 77))),
        "becomes RGB",
        0,
        BOTH,
        check=packs("x.png", (77, 77, 77)),
    ),
    Case("rotated by EXIF", among("x.jpg", rotated), "turned upright", 0, BOTH, check=upright),
    Case(
        "1 × 1 pixels",
        among("x.png", saved(Image.new("RGB", (1, 1), "red"))),
        "scaled up",
        0,
        BOTH,
        check=packs("x.png", (255, 0, 0)),
    ),
    Case(
        "1 × 20,000 pixels",
        among("x.png", saved(Image.new("RGB", (1, 20_000), "red"))),
        "the central pixel is taken",
        0,
        BOTH,
        check=packs("x.png", (255, 0, 0)),
    ),
    Case(
        "names with spaces, accents, quotes, commas, a leading dash",
        named("rose/-rf.png", 'rose/say "été, 花".png', "rose/=1+1.png", "rose/<script>.png"),
        "kept as they are",
        0,
        BOTH,
        check=lambda p: len(last(p)[0]) == 9 and 'rose/say "été, 花".png' in last(p)[0],
    ),
    Case(
        "one name in two folders, or with two endings, or in two cases",
        named("lily/0.png", "rose/0.jpg", "rose/0.PNG"),
        "distinguished by their paths",
        0,
        BOTH,
        check=lambda p: len(set(last(p)[0])) == 8,
    ),
    Case(
        "a link to a folder above", looping, "every image is taken once", 0, BOTH, check=lambda p: len(last(p)[0]) == 5
    ),
]
