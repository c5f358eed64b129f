"""Which files are images that can be decoded here: by their first bytes, whatever their names are."""

import re
import stat
import struct
import warnings
from pathlib import Path

from PIL import Image, features

from ddpm.runtime.interpreter import lacking

# Not all that Pillow knows: it hands some formats to other programs, such as Ghostscript.
BUILT_IN = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
FEATURES = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # that Pillow may have been built without
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"),
)
RAW_EXTENSIONS = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef"),
    *(".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
OTHER_EXTENSIONS = (
    *RAW_EXTENSIONS,
    *(".heic", ".heif", ".hif", ".jxl", ".jxr", ".wdp", ".hdp", ".psd", ".psb", ".xcf", ".svg", ".eps", ".ai", ".ico"),
    *(".icns", ".tga", ".pcx", ".dds", ".exr", ".hdr", ".pfm", ".pam", ".qoi", ".jls", ".sgi", ".xbm", ".xpm", ".fits"),
    *(".flif", ".bpg", ".djvu", ".avifs", ".mpo"),
)
SIGNATURES = (  # first bytes, and the format that they announce
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"8BPS", "PSD"),
    (b"gimp xcf", "XCF"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"qoif", "QOI"),
    (b"P7\n", "PAM"),
    *((head, "camera raw") for head in (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0MRM", b"FOVb")),
    *((head, "TIFF") for head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # their sizes in bytes, by version
MAKE, SUBFILE, DNG_VERSION = 271, 254, 50706  # tags of TIFF
HEAD = 64  # bytes that decide

# Of odd metadata; what is wrong with an image is found when it is decoded.
warnings.filterwarnings("ignore", module=r"PIL\.")


def _register_heif() -> bool:
    """Let Pillow read HEIC, if the optional package is there; libheif comes in it, and no other program is called."""
    if lacking("pillow_heif"):
        return False
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    return True


FORMATS = (
    *(name for name in BUILT_IN if name not in FEATURES or features.check(FEATURES[name])),
    *(["HEIF"] if _register_heif() else []),
)


def left_out(file: Path) -> str | None:
    """Why a file is not used: "" if it is, None if it is no image at all and need not be mentioned.

    What is called an image of a format that can be decoded is used also if it is none, so that it is found damaged.
    """
    extension = file.suffix.lower()
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # reading a pipe or a device could last for ever
            return "" if extension in EXTENSIONS else None
        with file.open("rb") as stream:
            head = stream.read(HEAD)
    except OSError as error:
        if extension in EXTENSIONS:
            return ""
        return f"cannot be read ({error.strerror})" if extension in ("", *OTHER_EXTENSIONS) else None
    kind = kind_of(head)
    if kind == "TIFF" and _is_raw(file, extension):
        kind = "camera raw"
    if kind in FORMATS:
        return ""
    if kind == "HEIF":
        return "HEIC, which needs pillow-heif: run `pip install pillow-heif`, then `dvc repro --force download`"
    if kind:
        return f"{kind}, which is not decoded here; export it as JPEG, PNG or TIFF"
    if extension in EXTENSIONS:
        return ""
    return f"{extension} is not decoded here; export it as JPEG, PNG or TIFF" if extension in OTHER_EXTENSIONS else None


def kind_of(head: bytes) -> str | None:
    """Format that the first 64 bytes of a file announce."""
    if head[4:8] == b"ftyp":
        return _of_brands({head[place : place + 4] for place in range(8, min(len(head), _size(head)), 4)})
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[14:18] in [struct.pack("<I", size) for size in BMP_HEADERS]:
        return "BMP"
    if re.match(rb"P[1-6]\s+(#|\d+\s+\d+\s)", head):
        return "PPM"
    if head[:4] in (b"II*\0", b"MM\0*") and head[8:10] == b"CR":
        return "camera raw"
    return next((kind for start, kind in SIGNATURES if head.startswith(start)), None)


def _size(head: bytes) -> int:
    return int.from_bytes(head[:4], "big")


def _of_brands(brands: set[bytes]) -> str | None:
    """Of files in boxes (ISO 14496-12), which may as well be films."""
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if b"crx " in brands:
        return "camera raw"
    return "HEIF" if brands & HEIC_BRANDS else None


def _is_raw(file: Path, extension: str) -> bool:
    """Whether a TIFF is a camera's raw file, whose first picture is a thumbnail."""
    try:
        with Image.open(file, formats=["TIFF"]) as image:
            tags = image.tag_v2  # type: ignore[attr-defined]
            return (
                DNG_VERSION in tags or bool(tags.get(SUBFILE, 0) & 1) or (extension in RAW_EXTENSIONS and MAKE in tags)
            )
    except Exception:  # damaged in one of a dozen ways, and found so when it is decoded
        return False
