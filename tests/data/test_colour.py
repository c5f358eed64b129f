"""Colours: what profiles, chunks and tags say is brought to sRGB, whatever the format; expectations by the formulas."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from ddpm.data.preprocess import BadImageError, prepare
from ddpm.data.sources.source import Item
from tests.support.image_bytes import SIDE, chunk, grey_profile, ink_profile, matrix_profile, png, tiff

COLOUR = (200, 80, 60)
# Display P3 and Adobe RGB (1998) in XYZ, adapted to D50, as their published profiles have them.
P3 = [(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)]
ADOBE = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
# From linear light of either to that of sRGB (CSS Color Module Level 4; Adobe RGB (1998) by Lindbloom).
P3_TO_SRGB = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
ADOBE_TO_SRGB = np.array([[1.3984, -0.3984, 0], [0, 1, 0], [0, -0.0429, 1.0429]])
BT2020_TO_SRGB = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])


class File:
    """A source of one encoded image."""

    name = "file"

    def open(self, item):
        return Image.open(io.BytesIO(item.payload))


def read(content: bytes) -> np.ndarray:
    """The colour in the middle, as it is packed."""
    return prepare(File(), SIDE, Item("x", 0, content)).pixels[SIDE // 2, SIDE // 2].astype(int)


def encoded(kind: str, image: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def plain(colour=COLOUR, mode="RGB") -> Image.Image:
    return Image.new(mode, (SIDE, SIDE), colour)


def srgb(light) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def light(colour=COLOUR) -> np.ndarray:
    values = np.array(colour) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def close(found, expected, levels=3) -> bool:
    return bool(np.abs(np.asarray(found) - np.asarray(expected)).max() <= levels)


LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
LOSSY = {"JPEG": {"quality": 100, "subsampling": 0}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}


@pytest.mark.parametrize(("kind", "options"), [*LOSSLESS.items(), *LOSSY.items()])
@pytest.mark.parametrize(
    ("columns", "gamma", "matrix"), [(P3, 2.2, P3_TO_SRGB), (ADOBE, 563 / 256, ADOBE_TO_SRGB)], ids=["P3", "Adobe RGB"]
)
def test_a_profile_is_converted_in_every_format(kind, options, columns, gamma, matrix):
    found = read(encoded(kind, plain(), icc_profile=matrix_profile(columns, gamma), **options))
    assert close(found, srgb(matrix @ (np.array(COLOUR) / 255) ** gamma))
    assert not close(found, COLOUR, 10)


@pytest.mark.parametrize(
    "profile", [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"", b"broken"]
)
def test_srgb_and_profiles_of_no_use_change_no_byte(profile):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    prepared = prepare(File(), SIDE, Item("x", 0, encoded("PNG", noise, icc_profile=profile))).pixels
    assert np.array_equal(prepared, np.asarray(noise))


def test_a_profile_of_another_colour_space_is_passed_over():
    assert read(encoded("PNG", plain(), icc_profile=ink_profile(100))).tolist() == list(COLOUR)


def test_a_grey_image_follows_its_profile_also_with_alpha_and_with_16_bits():
    profile = grey_profile(1.0)
    expected = [srgb(100 / 255)] * 3
    assert close(read(encoded("PNG", plain(100, "L"), icc_profile=profile)), expected)
    assert close(read(encoded("PNG", plain((100, 255), "LA"), icc_profile=profile)), expected)
    deep = Image.fromarray(np.full((SIDE, SIDE), 100 * 257, np.uint16))
    assert close(read(encoded("PNG", deep, icc_profile=profile)), expected)
    in_colour = matrix_profile([(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7142)], 1.0)
    assert close(read(encoded("JPEG", plain(100, "L"), icc_profile=in_colour)), expected)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_ink_follows_its_profile(kind):
    lightness = 128 / 255 * 100
    grey = srgb(((lightness + 16) / 116) ** 3)
    found = read(encoded(kind, plain((255, 0, 0, 0), "CMYK"), icc_profile=ink_profile(128)))
    assert close(found, [grey] * 3)


def test_transparency_is_laid_over_white_after_the_conversion():
    profile = matrix_profile(P3, 2.2)
    found = read(encoded("PNG", plain((*COLOUR, 128), "RGBA"), icc_profile=profile))
    expected = srgb(P3_TO_SRGB @ (np.array(COLOUR) / 255) ** 2.2)
    assert close(found, expected * 128 / 255 + 255 * 127 / 255)


def of_png(colour=COLOUR, **chunks: bytes) -> np.ndarray:
    return read(png(np.broadcast_to(np.uint8(colour), (SIDE, SIDE, 3)), 8, 2, **chunks))


def chromaticities(*points: float) -> bytes:
    return struct.pack(">8I", *(round(100_000 * value) for value in points))


def test_what_a_png_says_without_a_profile_counts():
    p3 = chromaticities(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    expected = srgb(P3_TO_SRGB @ light())
    assert close(of_png(cHRM=p3), expected)
    assert close(of_png(cICP=bytes([12, 13, 0, 1])), expected)
    assert close(of_png(cICP=bytes([9, 13, 0, 1])), srgb(BT2020_TO_SRGB @ light()))
    assert close(of_png(gAMA=struct.pack(">I", 100_000)), srgb(np.array(COLOUR) / 255))
    assert of_png(gAMA=struct.pack(">I", 45_455)).tolist() == list(COLOUR)
    assert of_png(gAMA=struct.pack(">I", 100_000), sRGB=b"\0").tolist() == list(COLOUR)
    assert of_png(cICP=bytes([1, 13, 0, 1]), cHRM=p3).tolist() == list(COLOUR), "cICP overrides"


@pytest.mark.parametrize("nonsense", [bytes(32), chromaticities(*[0.3] * 8), b"\xff" * 32])
def test_chromaticities_that_are_none_are_passed_over(nonsense):
    assert of_png(cHRM=nonsense).tolist() == list(COLOUR)


@pytest.mark.parametrize("transfer", [16, 18])
def test_brightness_beyond_white_is_refused(transfer):
    with pytest.raises(BadImageError, match=r"HDR \(PQ or HLG\).*export it as an SDR image"):
        of_png(cICP=bytes([9, transfer, 0, 1]))


def test_a_camera_says_adobe_rgb_in_exif_alone():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    found = read(encoded("JPEG", plain(), exif=exif, **LOSSY["JPEG"]))
    assert close(found, srgb(ADOBE_TO_SRGB @ (np.array(COLOUR) / 255) ** (563 / 256)))
    exif.get_ifd(0x8769)[0xA001] = 1
    assert close(read(encoded("JPEG", plain(), exif=exif, **LOSSY["JPEG"])), COLOUR)


def test_avif_says_display_p3_by_number():
    content = encoded("AVIF", plain(), **LOSSY["AVIF"])
    place = content.index(b"colrnclx") + 8
    stated = content[:place] + struct.pack(">HH", 12, 13) + content[place + 4 :]
    assert close(read(stated), srgb(P3_TO_SRGB @ light()), 4)
    assert close(read(content), COLOUR)


def test_jpeg_2000_has_its_profile_in_a_box():
    content = encoded("JPEG2000", plain())
    profile = matrix_profile(P3, 2.2)
    box = content.index(b"colr") - 4
    (size,) = struct.unpack(">I", content[box : box + 4])
    new = struct.pack(">I4sBBB", 11 + len(profile), b"colr", 2, 0, 0) + profile
    header = content.index(b"jp2h") - 4
    (whole,) = struct.unpack(">I", content[header : header + 4])
    changed = content[:box] + new + content[box + size :]
    changed = changed[:header] + struct.pack(">I", whole - size + len(new)) + changed[header + 4 :]
    assert close(read(changed), srgb(P3_TO_SRGB @ (np.array(COLOUR) / 255) ** 2.2))


def test_lab_and_ycbcr_become_rgb():
    lab = np.broadcast_to(np.uint8([150, 40, 226]), (SIDE, SIDE, 3))  # L* 58.8, a* 40, b* -30
    expected = [190, 115, 195]  # CIE 15, then from D50 to sRGB (Lindbloom)
    assert close(read(tiff(lab, Photometric=8)), expected)
    assert close(read(encoded("TIFF", plain().convert("YCbCr"))), COLOUR)


def test_a_long_note_and_a_long_profile_make_no_bad_png():
    note = np.random.default_rng(0).integers(97, 123, 3 << 20, dtype=np.uint8).tobytes()
    content = encoded("PNG", plain())
    place = content.index(b"IDAT") - 4
    for text in (b"Comment\0" + note, b"Comment\0\0\0\0\0" + note):
        kind = b"tEXt" if text[8:10] != b"\0\0" else b"iTXt"
        assert read(content[:place] + chunk(kind, text) + content[place:]).tolist() == list(COLOUR)
    import zlib

    packed = b"Comment\0\0" + zlib.compress(note)
    assert read(content[:place] + chunk(b"zTXt", packed) + content[place:]).tolist() == list(COLOUR)
