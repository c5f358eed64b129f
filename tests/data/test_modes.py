"""Range, polarity, transparency and orientation: each format's own way of saying what its samples mean."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from ddpm.data.preprocess import prepare
from ddpm.data.sources.source import Item
from tests.support.image_bytes import SIDE, bmp32, png, tiff

WHITE = [255, 255, 255]


class File:
    """A source of one encoded image."""

    name = "file"

    def open(self, item):
        return Image.open(io.BytesIO(item.payload))


def packed(content: bytes, size: int = SIDE):
    return prepare(File(), size, Item("x", 0, content))


def middle(content: bytes) -> list[int]:
    return packed(content).pixels[SIDE // 2, SIDE // 2].tolist()


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def filled(value, dtype=np.uint8) -> np.ndarray:
    return np.broadcast_to(np.array(value, dtype), (SIDE, SIDE, *np.shape(value)))


UNDO = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
FORMATS = [
    ("JPEG", {"quality": 100, "subsampling": 0}),
    ("PNG", {}),
    ("WEBP", {"lossless": True}),
    ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
]


@pytest.mark.parametrize("orientation", UNDO)
@pytest.mark.parametrize(("kind", "options"), FORMATS, ids=lambda value: str(value))
def test_every_orientation_of_every_format_comes_out_upright(kind, options, orientation):
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.linspace(0, 255, 48), np.linspace(0, 255, 32)[:, None]
    upright = Image.fromarray(pixels)
    stored = upright if UNDO[orientation] is None else upright.transpose(UNDO[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = packed(encoded(stored, kind, exif=exif, **options), 16)
    assert (result.width, result.height) == (48, 32)
    expected = packed(encoded(upright, "PNG"), 16).pixels
    assert np.abs(result.pixels.astype(int) - expected).max() <= (0 if kind in ("PNG", "WEBP", "TIFF") else 6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_in_xmp_counts_where_exif_has_none(kind):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        content = encoded(Image.new("RGB", (30, 20)), kind, pnginfo=info)
    else:
        content = encoded(Image.new("RGB", (30, 20)), kind, xmp=xmp)
    result = packed(content)
    assert (result.width, result.height) == (20, 30)


def test_a_reduced_jpeg_on_its_side_states_its_own_size():
    exif = Image.Exif()
    exif[0x0112] = 8
    result = packed(encoded(Image.new("RGB", (1001, 1000)), "JPEG", exif=exif))
    assert (result.width, result.height) == (1000, 1001)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("samples", "tags", "grey"),
    [
        (filled(0x4000, np.uint16), {}, 0x40),
        (filled(0x4000, np.uint16), {"Photometric": 0}, 255 - 0x40),
        (filled(0x40), {"Photometric": 0}, 255 - 0x40),
        (filled(0x4000, np.int16), {"Format": 2}, 0x80),
        (filled(-5, np.int16), {"Format": 2}, 0),
        (filled(0x4000_0000, np.int32), {"Format": 2}, 0x80),
    ],
    ids=["16 bits", "white is zero", "white is zero, 8 bits", "16 with sign", "below zero", "32 with sign"],
)
def test_tiff_states_range_and_polarity(samples, tags, grey, order):
    assert middle(tiff(samples, order, **tags)) == [grey] * 3


def test_tiff_of_32_bits_without_a_sign_has_their_whole_range_unless_16_are_in_use():
    assert middle(tiff(filled(0xC000_0000, np.uint32))) == [0xC0] * 3
    assert middle(tiff(filled(0xC000, np.uint32))) == [0xC0] * 3


def test_tiff_of_12_bits_has_white_at_4095():
    samples = np.frombuffer(bytes([0x80, 0x08, 0x00]) * (SIDE * SIDE // 2), np.uint8).reshape(SIDE, -1)
    content = tiff(samples, Bits=12)
    width = struct.pack("<HHIHH", 256, 3, 1, samples.shape[1], 0)
    assert middle(content.replace(width, struct.pack("<HHIHH", 256, 3, 1, SIDE, 0))) == [0x80] * 3


@pytest.mark.parametrize("clear", [True, False])
def test_a_transparent_value_of_16_bit_grey_is_all_of_its_bits(clear):
    value = 0x1234 if clear else 0x1235
    assert middle(png(filled(0x1234, np.uint16), 16, 0, tRNS=struct.pack(">H", value))) == (
        WHITE if clear else [0x12] * 3
    )


def test_a_transparent_value_of_16_bit_colours_is_compared_by_what_is_decoded():
    colour = (0x12FF, 0x34FF, 0x56FF)
    assert middle(png(filled(colour, np.uint16), 16, 2, tRNS=struct.pack(">3H", *colour))) == WHITE
    assert middle(png(filled(colour, np.uint16), 16, 2, tRNS=struct.pack(">3H", 0xFF, 0xFF, 0xFF))) == [
        0x12,
        0x34,
        0x56,
    ]


@pytest.mark.parametrize(("bits", "sample"), [(2, 1), (4, 9)])
def test_a_transparent_value_of_few_bits_is_stretched_as_the_samples_are(bits, sample):
    row = sum(sample << shift for shift in range(0, 8, bits))
    rows = np.full((SIDE, SIDE * bits // 8), row, np.uint8)
    assert middle(png(rows, bits, 0, tRNS=struct.pack(">H", sample))) == WHITE
    grey = 255 // (2**bits - 1) * sample
    assert middle(png(rows, bits, 0, tRNS=struct.pack(">H", sample + 1))) == [grey] * 3


def test_alpha_of_16_bits_is_laid_over_white():
    assert middle(png(filled((0xFFFF, 0, 0, 0x8000), np.uint16), 16, 6)) == [255, 127, 127]
    assert middle(png(filled((0, 0x8000), np.uint16), 16, 4)) == [127, 127, 127]


def test_alpha_that_was_never_written_hides_nothing():
    assert middle(bmp32((10, 20, 30, 0))) == [30, 20, 10]
    assert middle(bmp32((10, 20, 30, 255))) == [30, 20, 10]
    for extra in ({}, {"Extra": 0}):
        assert middle(tiff(filled((30, 20, 10, 0)), **extra)) == [30, 20, 10]
    photograph = np.zeros((SIDE, SIDE, 4), np.uint8)
    photograph[..., 0] = np.arange(SIDE)
    assert middle(encoded(Image.fromarray(photograph), "PNG")) == [SIDE // 2, 0, 0]
    assert middle(encoded(Image.fromarray(photograph).convert("LA"), "PNG"))[0] < 10


def test_alpha_that_was_written_counts():
    assert middle(tiff(filled((30, 20, 10, 0)), Extra=2)) == WHITE
    assert middle(encoded(Image.new("RGBA", (SIDE, SIDE), (30, 20, 10, 0)), "PNG")) == WHITE
    edge = np.zeros((SIDE, 2 * SIDE, 4), np.uint8)
    edge[:, 0] = 255  # something to see, though not in the central square
    edge[..., 0] = np.arange(2 * SIDE)
    assert middle(encoded(Image.fromarray(edge), "PNG")) == WHITE


@pytest.mark.parametrize("inverted", [False, True])
def test_ink_of_adobe_counts_from_the_other_end(inverted):
    content = encoded(Image.new("CMYK", (SIDE, SIDE), (255, 0, 0, 0)), "JPEG", quality=100)
    assert b"Adobe" in content
    if inverted:  # without Adobe's marker 255 is full ink, here of all but cyan
        place = content.index(b"\xff\xee")
        content = content[:place] + content[place + 2 + int.from_bytes(content[place + 2 : place + 4], "big") :]
    expected = [0, 0, 0] if inverted else [0, 255, 255]
    assert np.abs(np.array(middle(content)) - expected).max() <= 4
