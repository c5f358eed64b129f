"""The archive of Flowers-102 and its lists, damaged or hostile; their checksums were right when they were fetched."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.cases.case import Case, Place

NUMBERS = range(1, 7)


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 16), "red").save(stream, "JPEG")
    return stream.getvalue()


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


def archive(*extra: tuple, numbers=NUMBERS, labels=(1, 2, 3, 4, 5, 102), splits=NUMBERS) -> Callable[[Place], None]:
    """The three official files in miniature, with more in the archive."""

    def prepare(place: Place) -> None:
        from scipy.io import savemat

        raw = place.root / "data/raw/fetched"
        raw.mkdir(parents=True)
        place.params["data"] |= {"image_size": 16, "splits": ["train"]}
        savemat(raw / "imagelabels.mat", {"labels": np.array([labels])})
        savemat(raw / "setid.mat", {key: np.array([list(splits)]) for key in ("trnid", "valid", "tstid")})
        images = [member(f"jpg/image_{number:05d}.jpg", jpeg()) for number in numbers]
        with tarfile.open(raw / "102flowers.tgz", "w:gz") as file:
            for info, content in (*extra, *images):
                file.addfile(info, io.BytesIO(content))

    return prepare


def damaged(name: str, change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        archive()(place)
        file = place.root / "data/raw/fetched" / name
        file.write_bytes(change(file.read_bytes()))

    return prepare


def unpacks_to_a_gigabyte(place: Place) -> None:
    archive()(place)
    place.patch.setattr("ddpm.data.sources.flowers102.MAX_BYTES", 5_000_000)  # or the test would take seconds
    info = tarfile.TarInfo("zeros")
    info.size = 1 << 40
    with gzip.open(place.root / "data/raw/fetched/102flowers.tgz", "wb", compresslevel=1) as file:
        file.write(info.tobuf())
        file.write(bytes(6_000_000))


def many_files(place: Place) -> None:
    archive(*(member(f"{number}") for number in range(100)))(place)
    place.patch.setattr("ddpm.data.sources.flowers102.MAX_FILES", 50)


def packs_all(place: Place) -> bool:
    from ddpm.data.dataset import load_packed

    found = load_packed(Path("data/processed")).items["id"].tolist()
    return found == [f"image_{number:05d}" for number in NUMBERS] and not Path("../escaped").exists()


ESCAPES = [
    member("../escaped", b"x"),
    member("../../../../../../../../tmp/escaped", b"x"),
    member("/tmp/escaped", b"x"),
    member("jpg/image_00001.jpg", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    member("jpg/image_00002.jpg", kind=tarfile.LNKTYPE, link="../../etc/passwd"),
    member("jpg/image_00003.jpg", kind=tarfile.CHRTYPE),
    member("jpg/image_00004.jpg", kind=tarfile.FIFOTYPE),
    member("jpg/image_00005.jpg", kind=tarfile.GNUTYPE_SPARSE),  # whose zeros would pass every limit
    member("jpg/image_" + "1" * 90 + ".jpg", b"x"),
]

ARCHIVES = [
    Case(
        "not there",
        lambda place: None,
        (
            "data/raw/fetched/imagelabels.mat: cannot be read ([Errno 2] No such file or directory: "
            "'data/raw/fetched/imagelabels.mat'); run `dvc repro --force download`"
        ),
        run="preprocess",
    ),
    Case(
        "empty",
        damaged("102flowers.tgz", lambda data: b""),
        ("data/raw/fetched/102flowers.tgz: cannot be read (…); run `dvc repro --force download`"),
        run="preprocess",
    ),
    Case(
        "a web page",
        damaged("102flowers.tgz", lambda data: b"<html>"),
        ("data/raw/fetched/102flowers.tgz: cannot be read (…); run `dvc repro --force download`"),
        run="preprocess",
    ),
    Case(
        "cut in half",
        damaged("102flowers.tgz", lambda data: data[: len(data) // 2]),
        ("data/raw/fetched/102flowers.tgz: cannot be read (…); run `dvc repro --force download`"),
        run="preprocess",
    ),
    Case(
        "a flipped bit",
        damaged("102flowers.tgz", lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:]),
        ("data/raw/fetched/102flowers.tgz: cannot be read (…); run `dvc repro --force download`"),
        run="preprocess",
    ),
    Case(
        "without two of the images",
        archive(numbers=range(1, 5)),
        (
            "data/raw/fetched/102flowers.tgz: cannot be read (2 images are missing, the first is number 5); run `dvc "
            "repro --force download`"
        ),
        run="preprocess",
    ),
    Case(
        "a member of a terabyte, of zeros",
        unpacks_to_a_gigabyte,
        (
            "data/raw/fetched/102flowers.tgz: cannot be read (it unpacks to more than 5000000 bytes); "
            "run `dvc repro --force download`"
        ),
        run="preprocess",
    ),
    Case(
        "too many files",
        many_files,
        (
            "data/raw/fetched/102flowers.tgz: cannot be read (it holds more than 50 files); "
            "run `dvc repro --force download`"
        ),
        run="preprocess",
    ),
    Case(
        "an image that is none",
        archive(member("jpg/image_00001.jpg", b"no image")),
        (
            "data.source flowers102: image_00001 cannot be read as an image (it is none of the known formats); "
            "repair or remove it, or set data.on_bad_image to skip"
        ),
        run="preprocess",
    ),
    Case(
        "`imagelabels.mat`: cut in half",
        damaged("imagelabels.mat", lambda data: data[: len(data) // 2]),
        ("data/raw/fetched/imagelabels.mat: cannot be read (…); run `dvc repro --force download`"),
        run="preprocess",
    ),
    Case(
        "`imagelabels.mat`: a class 103",
        archive(labels=(1, 2, 3, 4, 5, 103)),
        (
            "data/raw/fetched/imagelabels.mat: cannot be read (labels reach from 1 to 103, not 1 to 102); "
            "run `dvc repro --force download`"
        ),
        run="preprocess",
    ),
    Case(
        "`setid.mat`: an image 7 of 6",
        archive(splits=range(2, 8)),
        (
            "data/raw/fetched/setid.mat: cannot be read (images reach from 2 to 7, not 1 to 6); "
            "run `dvc repro --force download`"
        ),
        run="preprocess",
    ),
    Case(
        "`setid.mat`: an image 0",
        archive(splits=range(6)),
        (
            "data/raw/fetched/setid.mat: cannot be read (images reach from 0 to 5, not 1 to 6); "
            "run `dvc repro --force download`"
        ),
        run="preprocess",
    ),
    Case(
        "`setid.mat`: without the list of a split",
        damaged("setid.mat", lambda data: data.replace(b"trnid", b"train")),
        ("data/raw/fetched/setid.mat: cannot be read (…); run `dvc repro --force download`"),
        run="preprocess",
    ),
    Case(
        "members with `../`, `/`, links, devices, pipes and sparse files",
        archive(*ESCAPES),
        ("passed over; nothing is ever unpacked, the images are read in memory"),
        0,
        "preprocess",
        check=packs_all,
    ),
]
