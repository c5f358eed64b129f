"""A folder of photographs with something odd in it; flowers102 reads its images through the same functions."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.cases.case import Case, Place

SIZE = 16


def photographs(place: Place, count: int = 5) -> Path:
    """Good images in one class, and parameters that lead to them."""
    folder = place.root / "photos" / "rose"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (20, 18), (50 * number, 99, 0)).save(folder / f"{number}.png")
    place.params["data"] |= {"source": "folder", "path": "photos", "image_size": SIZE}
    place.params["fid"]["extractor"] = "efficientnet_lite0"
    return folder


def among(name: str, make: Callable[[Path], object], skip: bool = False) -> Callable[[Place], None]:
    """Good images, and between them one made by `make`."""

    def prepare(place: Place) -> None:
        file = photographs(place) / name
        file.parent.mkdir(exist_ok=True)
        make(file)
        if skip:
            place.set("data.on_bad_image", "skip")

    return prepare


def content(data: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(data)


def saved(image: Image.Image, **options: object) -> Callable[[Path], object]:
    return lambda file: image.save(file, **options)


def cut_jpeg(file: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    os.truncate(file, file.stat().st_size // 2)


def bomb(file: Path) -> None:
    """A PNG of a hundred bytes that says it has 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def huge(file: Path) -> None:
    file.touch()
    os.truncate(file, 3 << 30)  # takes no room on the disk


def forbidden(place: Place) -> None:
    """As for a user who is not root."""
    photographs(place)

    def refuse(file, *_):
        raise PermissionError(13, "Permission denied", str(file))

    place.patch.setattr("ddpm.data.sources.folder.checksum", refuse)


def named(*names: str) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        folder = photographs(place)
        for name in names:
            file = folder.parent / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(file)

    return prepare


def only_damaged(place: Place) -> None:
    for file in photographs(place).iterdir():
        file.write_bytes(b"")
    place.set("data.on_bad_image", "skip")


def file_for_a_folder(place: Place) -> None:
    photographs(place)
    place.set("data.path", "photos/rose/1.png")


def empty_folder(place: Place) -> None:
    photographs(place, 0)


def nowhere(place: Place) -> None:
    photographs(place)
    place.set("data.path", "nowhere")


def nobody(place: Place) -> None:
    photographs(place)
    place.set("data.path", "~nobody-of-that-name/photos")


CHANGED = Path("photos/rose/1.png")
BOTH = "download preprocess"

IMAGES = [
    Case(
        "`data.path` that leads nowhere",
        nowhere,
        ("data.path: nowhere is no folder; name the folder that holds your images"),
        run="download",
    ),
    Case(
        "`data.path: ~nobody-of-that-name/photos`",
        nobody,
        ("~nobody-of-that-name/photos: there is no user of that name; write the path in full"),
        run="download",
    ),
    Case(
        "`data.path` of a file",
        file_for_a_folder,
        ("data.path: photos/rose/1.png is no folder; name the folder that holds your images"),
        run="download",
    ),
    Case(
        "a folder without an image",
        empty_folder,
        ("data.path: photos holds no image; put photographs there"),
        run="download",
    ),
    Case(
        "one single image",
        lambda place: photographs(place, 1),
        ("data.source folder: 1 image is too few, the scores need at least 4; add some, or choose another data.source"),
        run=BOTH,
    ),
    Case(
        "zero bytes",
        among("x.jpg", content(b"")),
        (
            "data.source folder: rose/x.jpg cannot be read as an image (it is none of the known formats); repair "
            "or remove it, or set data.on_bad_image to skip"
        ),
        run=BOTH,
    ),
    Case(
        "text, renamed to .jpg",
        among("x.jpg", content(b"no image")),
        (
            "data.source folder: rose/x.jpg cannot be read as an image (it is none of the known formats); repair "
            "or remove it, or set data.on_bad_image to skip"
        ),
        run=BOTH,
    ),
    Case(
        "PostScript, renamed to .png, which Pillow would hand to Ghostscript",
        among("x.png", content(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")),
        (
            "data.source folder: rose/x.png cannot be read as an image (it is none of the known formats); repair "
            "or remove it, or set data.on_bad_image to skip"
        ),
        run=BOTH,
    ),
    Case(
        "a photograph cut in half",
        among("x.jpg", cut_jpeg),
        (
            "data.source folder: rose/x.jpg cannot be read as an image (image file is truncated (… bytes not "
            "processed)); repair or remove it, or set data.on_bad_image to skip"
        ),
        run=BOTH,
    ),
    Case(
        "30,000 × 30,000 pixels in a hundred bytes",
        among("x.png", bomb),
        (
            "data.source folder: rose/x.png cannot be read as an image (Image size (900000000 pixels) exceeds "
            "limit of 178956970 pixels, could be decompression bomb DOS attack.); repair or remove it, or set "
            "data.on_bad_image to skip"
        ),
        run=BOTH,
    ),
    Case(
        "floating point pixels",
        among("x.tif", saved(Image.new("F", (8, 8)))),
        (
            "data.source folder: rose/x.tif cannot be read as an image (floating point pixels have no agreed "
            "range; save the image with 8 or 16 bits per channel); repair or remove it, or set data.on_bad_image "
            "to skip"
        ),
        run=BOTH,
    ),
    Case(
        "a file of 3 GiB",
        among("x.png", huge),
        ("photos/rose/x.png: 3221225472 bytes are more than an image has; remove it, or scale it down"),
        run="download",
    ),
    Case(
        "a link to itself",
        among("x.png", lambda file: file.symlink_to("x.png")),
        ("photos/rose/x.png: cannot be read (Too many levels of symbolic links); repair or remove it"),
        run="download",
    ),
    Case(
        "a link to nothing",
        among("x.png", lambda file: file.symlink_to("gone.png")),
        ("photos/rose/x.png: cannot be read (No such file or directory); repair or remove it"),
        run="download",
    ),
    Case(
        "a pipe",
        among("x.png", lambda file: os.mkfifo(file)),
        ("photos/rose/x.png: is no regular file; remove it, or move it elsewhere"),
        run="download",
    ),
    Case(
        "a link to a device",
        among("x.png", lambda file: file.symlink_to("/dev/zero")),
        ("photos/rose/x.png: is no regular file; remove it, or move it elsewhere"),
        run="download",
    ),
    Case(
        "a file that may not be read",
        forbidden,
        ("photos/rose/0.png: cannot be read (Permission denied); repair or remove it"),
        run="download",
    ),
    Case(
        "a line break in a name",
        named("rose/line\nbreak.png"),
        ("data.path: photos holds 'rose/line\\nbreak.png'; rename it without control characters, in UTF-8"),
        run="download",
    ),
    Case(
        "a name that is not UTF-8",
        named(os.fsdecode(b"rose/\xff.png")),
        ("data.path: photos holds 'rose/\\udcff.png'; rename it without control characters, in UTF-8"),
        run="download",
    ),
    Case(
        "an image changed after `download`",
        photographs,
        ("photos/rose/1.png: changed since `download`; run `dvc repro --force download`"),
        run=BOTH,
        between=lambda p: CHANGED.write_bytes(b"x"),
    ),
    Case(
        "an image removed after `download`",
        photographs,
        ("photos/rose/1.png: changed since `download`; run `dvc repro --force download`"),
        run=BOTH,
        between=lambda p: CHANGED.unlink(),
    ),
    Case(
        "a damaged manifest",
        photographs,
        ("data/raw/fetched/manifest.csv: damaged (…); run `dvc repro --force download`"),
        run=BOTH,
        between=lambda p: Path("data/raw/fetched/manifest.csv").write_bytes(b"id,label\nx,\xff\n"),
    ),
    Case(
        "the manifest of another folder",
        photographs,
        ("photos/../../x.png: changed since `download`; run `dvc repro --force download`"),
        run=BOTH,
        between=lambda p: Path("data/raw/fetched/manifest.csv").write_text(
            "id,label,bytes,sha256\n" + "../../x.png,0,1,0\n" * 5
        ),
    ),
    Case(
        "`data.on_bad_image: skip`, and too few are left",
        only_damaged,
        (
            "data.source folder: only 0 of 5 images can be read, the scores need 4; repair the others, the first "
            "is rose/0.png: it is none of the known formats"
        ),
        run=BOTH,
    ),
]
