"""What the numbers of a file's pixels mean as colours, and the same colours in sRGB."""

import io
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

SRGB = ImageCms.createProfile("sRGB")
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
SAME = 2  # levels of 255; profiles that move no colour farther are sRGB by another name
MODES = {
    b"RGB ": "RGB",
    b"GRAY": "L",
    b"CMYK": "CMYK",
    b"Lab ": "LAB",
}  # by the colour space in an ICC profile's header
HEAD = 1 << 16  # bytes at the beginning of a file in which its properties lie
EXIF_IFD, COLOUR_SPACE, INTEROP_IFD = 0x8769, 0xA001, 0xA005
D65 = (0.3127, 0.3290)  # xy of D65, the white of all but cinema's primaries
D50 = np.array([0.9642, 1.0, 0.8249])  # XYZ
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

Point = tuple[float, float]
BT709: tuple[Point, ...] = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_RGB: tuple[Point, ...] = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
# By number of ITU-T H.273: red, green, blue, white. sRGB (1) is not among them, and neither are the old video systems.
PRIMARIES: dict[int, tuple[Point, ...]] = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),  # Display P3
}
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}  # of H.273's transfer characteristics; the others for 8 bits are shown as sRGB is
HDR = (16, 18)  # PQ and HLG: brightness beyond white


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an L, RGB, CMYK or LAB image to RGB in sRGB.

    Args:
        image: its pixels are those of the file.
        profile: ICC, see `profile_of`; without one, or with one that is damaged or of another colour space, L and RGB
            are taken for sRGB, and CMYK for ink as simple as can be.
    """
    if image.mode == "LAB":
        profile = LAB
    transform = _transform(profile, image.mode) if profile else None
    if profile is None or transform is None:
        return image.convert("RGB")
    return transform.apply(image.convert(MODES[profile[16:20]]))


def profile_of(image: Image.Image) -> bytes | None:
    """The ICC profile of a file that is open and not yet decoded, or one made of its other declarations of colour.

    Raises:
        ValueError: the colours go beyond white (HDR), so that no conversion to 8 bits is the right one.
    """
    stated = _stated(image)
    if stated:
        primaries, transfer = stated
        if transfer in HDR:
            raise ValueError("its brightness is HDR (PQ or HLG), which 8 bits do not hold; export it as an SDR image")
        if image.format == "PNG" or not image.info.get("icc_profile"):  # in a PNG, cICP overrides all else
            points = PRIMARIES.get(primaries, (*BT709, D65))
            gamma = GAMMAS.get(transfer)
            return None if primaries not in PRIMARIES and gamma is None else _made(points, gamma)
    if profile := image.info.get("icc_profile"):
        return bytes(profile)
    if image.format == "PNG":
        return _of_png(image)
    if image.format == "JPEG2000":
        return _of_jpeg2000(_head(image))
    exif = image.getexif()
    if exif.get_ifd(EXIF_IFD).get(COLOUR_SPACE) == 2 or exif.get_ifd(INTEROP_IFD).get(1) == "R03":  # DCF 2.0
        return _made((*ADOBE_RGB, D65), 563 / 256)
    return None


def _stated(image: Image.Image) -> tuple[int, int] | None:
    """Numbers of primaries and transfer characteristics (H.273), in a PNG's cICP or in the nclx of AVIF and HEIC."""
    if image.format == "PNG":
        content = next((data for kind, data in _chunks(_head(image)) if kind == b"cICP"), b"")
        return (content[0], content[1]) if len(content) == 4 else None
    if image.format in ("AVIF", "HEIF"):
        _, found, content = _head(image).partition(b"colrnclx")
        return struct.unpack(">HH", content[:4]) if found and len(content) >= 4 else None
    return None


def _of_png(image: Image.Image) -> bytes | None:
    """From gAMA and cHRM, which count only where neither a profile nor sRGB is named."""
    gamma, points = image.info.get("gamma"), image.info.get("chromaticity")
    if "srgb" in image.info or not (gamma or points):
        return None
    power = None if not gamma or abs(gamma * 2.2 - 1) < 0.05 else 1 / gamma  # 1/2.2 is how sRGB itself is written there
    if power and not 0.1 < power < 10:
        return None
    white, *primaries = zip(points[::2], points[1::2], strict=True) if points else (D65, *BT709)
    return _made((*primaries, white), power)


def _of_jpeg2000(head: bytes) -> bytes | None:
    """The profile in a colour specification box (ISO 15444-1, I.5.3.3), of method 2 or 3."""
    before, found, content = head.partition(b"colr")
    if not found or len(before) < 4 or content[:1] not in (b"\2", b"\3"):
        return None
    (size,) = struct.unpack(">I", before[-4:])
    return content[3 : size - 8]


def _head(image: Image.Image) -> bytes:
    stream = getattr(image, "fp", None)
    if stream is None:
        return b""
    place = stream.tell()
    stream.seek(0)
    head = stream.read(HEAD)
    stream.seek(place)
    return head


def _chunks(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of a PNG's chunks, as far as the bytes reach."""
    place = 8
    while place + 8 <= len(head):
        size, kind = struct.unpack(">I4s", head[place : place + 8])
        yield kind, head[place + 8 : place + 8 + size]
        place += size + 12


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What leads from a profile to sRGB; None where there is nothing to do, or the profile is of no use."""
    space = MODES.get(profile[16:20])
    if space is None or (space != mode and (mode, space) != ("L", "RGB")):
        return None
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(opened, SRGB, space, "RGB", ImageCms.Intent.PERCEPTUAL)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if space in ("RGB", "L") and _is_srgb(transform, space):
        return None
    return transform


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    image = Image.fromarray(colours) if mode == "RGB" else Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    before = np.asarray(image.convert("RGB"), dtype=int)
    return bool(np.abs(np.asarray(ImageCms.applyTransform(image, transform), dtype=int) - before).max() <= SAME)


@lru_cache(maxsize=16)
def _made(points: tuple[Point, ...], gamma: float | None) -> bytes | None:
    """An ICC profile, version 2, of primaries and white (xy) and a gamma; without one, of the curve of sRGB."""
    xyz = np.array([(x / y, 1, (1 - x - y) / y) if y else (0, 0, 0) for x, y in points])
    try:
        matrix = xyz[:3].T * np.linalg.solve(xyz[:3].T, xyz[3])
    except np.linalg.LinAlgError:
        return None
    adapted = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ xyz[3])) @ BRADFORD @ matrix
    curve: Callable[[np.ndarray], np.ndarray] = _srgb_curve if gamma is None else lambda v: v**gamma
    table = (curve(np.linspace(0, 1, 1024)) * 65535).round().astype(">u2").tobytes()
    red, green, blue = map(_xyz, adapted.T)
    tags = {b"wtpt": _xyz(D50), b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv" + struct.pack(">II", 0, 1024) + table)
    entries, content, place = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        entries += name + struct.pack(">II", place + len(content), len(data))
        content += data
    size = place + len(content)
    head = struct.pack(">I4sI4s4s4s12s4s28x", size, b"", 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"", b"acsp")
    return head + _xyz(D50)[8:] + bytes(48) + struct.pack(">I", len(tags)) + entries + content


def _srgb_curve(values: np.ndarray) -> np.ndarray:
    """From values in [0, 1] to light (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values.tolist()))
