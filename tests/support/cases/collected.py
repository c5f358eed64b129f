"""Folders and files as telephones, storage systems and other programs leave them."""

import shutil
import struct
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support import ROOT
from tests.support.cases.case import POINTER, Case, Place
from tests.support.cases.images import BOTH, SIZE, among, content, named, photographs, saved
from tests.support.cases.odd_images import last, packs, upright
from tests.support.image_bytes import bmp32, chunk, matrix_profile, png, tiff

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
P3 = [(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)]  # adapted to D50


def grey16(clear: int) -> bytes:
    return png(np.full((SIZE, SIZE), 0x1234, np.uint16), 16, 0, tRNS=struct.pack(">H", clear))


def hdr() -> bytes:
    return png(np.full((SIZE, SIZE, 3), 99, np.uint8), 8, 2, cICP=bytes([9, 16, 0, 1]))


def noted(file: Path) -> None:
    Image.new("RGB", (SIZE, SIZE), "red").save(file)
    data = file.read_bytes()
    place = data.index(b"IDAT") - 4
    file.write_bytes(data[:place] + chunk(b"iTXt", b"Comment\0\0\0\0\0" + b"a" * (2 << 20)) + data[place:])


def without_heif(place: Place) -> None:
    from ddpm.data.sources import kinds

    place.patch.setattr(kinds, "FORMATS", kinds.BUILT_IN)


def heic(others: int) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        without_heif(place)
        (photographs(place, others) / "x.HEIC").write_bytes(HEIC)

    return prepare


def leaves_out(name: str) -> Callable[[Place], bool]:
    return lambda place: [one["id"] for one in last(place)[2]["skipped"]] == [name] and len(last(place)[0]) == 5


def own_model(place: Place) -> None:
    photographs(place)
    shutil.copy(ROOT / "dvc.yaml", place.root)
    (place.root / "models").mkdir()
    (place.root / "models/model.safetensors").write_bytes(b"mine")


def in_data_raw(place: Place) -> None:
    folder = photographs(place)
    shutil.copy(ROOT / "dvc.yaml", place.root)
    shutil.copytree(folder, place.root / "data/raw/rose")
    place.set("data.path", "data/raw")


def two_forms(place: Place) -> None:
    named(*(f"{unicodedata.normalize(form, 'été')}/{form}.png" for form in ("NFC", "NFD")))(place)


def splits(place: Place) -> None:
    folder = photographs(place)
    for name in ("train", "test"):
        shutil.copytree(folder, folder.parent / name / "rose")
    shutil.rmtree(folder)


def twice(place: Place) -> None:
    folder = photographs(place)
    shutil.copy(folder / "4.png", folder / "5.png")


COLLECTED = [
    Case(
        "a pointer of git LFS, as a clone without it leaves them",
        among("x.jpg", content(POINTER)),
        (
            "data.source folder: rose/x.jpg cannot be read as an image (it is a pointer of git LFS, not the file "
            "itself, which `git lfs pull` fetches); repair or remove it, or set data.on_bad_image to skip"
        ),
        run=BOTH,
    ),
    Case(
        "a model of your own where `train` writes its, before the first run",
        own_model,
        (
            "models/model.safetensors: would be deleted, for the stages write files of these names, and DVC has no "
            "copy; move or rename what is yours, and delete the rest"
        ),
        run="download",
        check=lambda p: (p.root / "models/model.safetensors").read_bytes() == b"mine",
    ),
    Case(
        "photographs in `data/raw`",
        in_data_raw,
        "used, and left where they are: DVC empties `data/raw/fetched` alone",
        0,
        BOTH,
        check=lambda p: len(last(p)[0]) == len(list((p.root / "data/raw/rose").iterdir())) == 5,
    ),
    Case(
        "HEIC alone, without pillow-heif",
        heic(0),
        (
            "data.path: photos holds no image that can be decoded; 1 left out: rose/x.HEIC (HEIC, which needs "
            "pillow-heif: run `pip install pillow-heif`, then `dvc repro --force download`)"
        ),
        run="download",
    ),
    Case(
        "HEIC among other photographs, without pillow-heif",
        heic(5),
        "left out: printed, and listed like what is skipped on demand",
        0,
        BOTH,
        check=leaves_out("rose/x.HEIC"),
    ),
    Case(
        "JPEG XL that is called .jpg",
        among("x.jpg", content(b"\0\0\0\x0cJXL \r\n\x87\n")),
        "left out, and listed",
        0,
        BOTH,
        check=leaves_out("rose/x.jpg"),
    ),
    Case(
        "a JPEG without an extension",
        among("x", saved(Image.new("RGB", (8, 8), "red"), format="JPEG")),
        "used: the content decides",
        0,
        BOTH,
        check=packs("x"),
    ),
    Case(
        "AVIF, JPEG 2000, PPM",
        among("x", saved(Image.new("RGB", (8, 8), "red"), format="AVIF", quality=100)),
        "used",
        0,
        BOTH,
        check=packs("x", (254, 0, 0)),
    ),
    Case(
        "text without an extension",
        among("x", content(b"P3 is the third point")),
        "passed over",
        0,
        BOTH,
        check=lambda p: last(p)[2]["skipped"] == [],
    ),
    Case(
        "a folder `@eaDir` of thumbnails, or another of a storage system",
        named("rose/@eaDir/0.png/thumbnail.png"),
        "left out, and listed",
        0,
        BOTH,
        check=leaves_out("rose/@eaDir"),
    ),
    Case(
        "sub-folders `train` and `test` that hold the classes",
        splits,
        (
            "data.path: the sub-folders of photos are test, train, which are splits and no classes; name one of them, "
            "such as photos/train, or put the classes side by side in one folder"
        ),
        run="download",
    ),
    Case(
        "a class whose name has its accents in two Unicode forms",
        two_forms,
        "one class",
        0,
        BOTH,
        check=lambda p: last(p)[2]["class_names"] == ["rose", "été"],
    ),
    Case(
        "a photograph twice",
        twice,
        "printed and counted in the report; copies stay on one side of the held-out split",
        0,
        BOTH,
        check=lambda p: last(p)[2]["copies"] == [["rose/4.png", "rose/5.png"]],
    ),
    Case(
        "a Display P3 profile, as of a telephone",
        among("x.png", saved(Image.new("RGB", (8, 8), (200, 80, 60)), icc_profile=matrix_profile(P3, 2.2))),
        "converted to sRGB",
        0,
        BOTH,
        check=packs("x.png", (218, 67, 46)),
    ),
    Case(
        "HDR (PQ or HLG)",
        among("x.png", content(hdr())),
        (
            "data.source folder: rose/x.png cannot be read as an image (its brightness is HDR (PQ or HLG), which 8 "
            "bits do not hold; export it as an SDR image); repair or remove it, or set data.on_bad_image to skip"
        ),
        run=BOTH,
    ),
    Case(
        "a TIFF that the camera turned",
        among("x.tif", content(tiff(np.zeros((20, 30), np.uint8), Orientation=6))),
        "turned upright",
        0,
        BOTH,
        check=upright,
    ),
    Case(
        "16 bits with a transparent value",
        among("x.png", content(grey16(0x1234))),
        "laid over white",
        0,
        BOTH,
        check=packs("x.png", (255, 255, 255)),
    ),
    Case(
        "16 bits with white at 0",
        among("x.tif", content(tiff(np.full((SIZE, SIZE), 0x4000, np.uint16), Photometric=0))),
        "the right way round",
        0,
        BOTH,
        check=packs("x.tif", (191, 191, 191)),
    ),
    Case(
        "an alpha channel into which nothing was written",
        among("x.bmp", content(bmp32((10, 20, 30, 0)))),
        "passed over",
        0,
        BOTH,
        check=packs("x.bmp", (30, 20, 10)),
    ),
    Case("2 MB of text in a PNG", among("x.png", noted), "read", 0, BOTH, check=packs("x.png", (255, 0, 0))),
]
