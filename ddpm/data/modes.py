"""From the many modes of Pillow to 8-bit RGB, with range, polarity and transparency as the file means them."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, PngImagePlugin, TiffImagePlugin

from ddpm.data.colour import profile_of, to_srgb

# A long note in a PNG makes no bad photograph; Pillow reads 1 MiB in one piece, but up to 64 MiB in all.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

PHOTOMETRIC, BITS, EXTRA, FORMAT = (
    TiffImagePlugin.PHOTOMETRIC_INTERPRETATION,
    TiffImagePlugin.BITSPERSAMPLE,
    TiffImagePlugin.EXTRASAMPLES,
    TiffImagePlugin.SAMPLEFORMAT,
)
# One of the ways to write 16 bits with white at 0; Pillow knows the other three orders of bytes and polarities.
TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))
PNG_BITS = {"L;2": 2, "L;4": 4, "RGB;16B": 16}  # by Pillow's raw mode, where they are not those of the mode


class Meaning(NamedTuple):
    """What a file declares about its samples.

    bits: of white in the I modes; in a PNG, of a transparent value, where Pillow's mode has another number.
    inverted: black is the greatest value, or of ink 0 is full, where Pillow leaves or makes it so.
    unused_alpha: the fourth channel may be no transparency: the format has no declaration, or nothing was written.
    profile: ICC, see `colour.profile_of`.
    """

    bits: int | None = None
    inverted: bool = False
    unused_alpha: bool = False
    profile: bytes | None = None


def meaning_of(image: Image.Image) -> Meaning:
    """Read what a file declares; it must be open, and not yet decoded.

    Raises:
        ValueError: see `colour.profile_of`.
    """
    bits, inverted, unused_alpha = None, False, image.format == "BMP"
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        if image.mode.startswith("I"):
            bits = tags.get(BITS, (16,))[0] - (tags.get(FORMAT, (1,))[0] == 2)  # the sign takes one
            inverted = tags.get(PHOTOMETRIC) == 0
        unused_alpha = 2 not in tags.get(EXTRA, ()) and 1 not in tags.get(EXTRA, ())
    elif image.mode == "CMYK" and image.format in ("JPEG", "MPO"):
        inverted = "adobe" not in image.info  # Adobe's programs write 255 for no ink, and Pillow takes all for theirs
    elif isinstance(image, PngImagePlugin.PngImageFile) and image.tile:
        raw_mode = image.tile[0][3]
        bits = PNG_BITS.get(raw_mode if isinstance(raw_mode, str) else "")
    return Meaning(bits, inverted, unused_alpha, profile_of(image))


def to_rgb(image: Image.Image, meaning: Meaning | None = None) -> Image.Image:
    """Convert any mode to RGB: transparency over white, more than 8 bits scaled to 8, colours to sRGB.

    Args:
        image: decoded.
        meaning: of the file that it is from, or a part of it.

    Raises:
        ValueError: the pixels are floating point numbers, whose range no file states.
    """
    meaning = meaning or Meaning()
    if image.mode == "F":
        raise ValueError("floating point pixels have no agreed range; save the image with 8 or 16 bits per channel")
    colours, alpha = _of_many_bits(image, meaning) if image.mode.startswith("I") else _apart(image, meaning)
    rgb = to_srgb(colours, meaning.profile)
    if alpha is None:
        return rgb
    rgb.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgb).convert("RGB")


def has_unused_alpha(image: Image.Image, meaning: Meaning) -> bool:
    """Whether a decoded image would be invisible though it has something to show: nobody has written its alpha."""
    if image.mode not in ("RGBA", "LA") or image.getchannel("A").getbbox():
        return False
    pixels = np.asarray(image)
    return meaning.unused_alpha or bool((pixels != pixels[0, 0]).any())


def _of_many_bits(image: Image.Image, meaning: Meaning) -> tuple[Image.Image, Image.Image | None]:
    """Scale grey of more than 8 bits to L, which PIL's own conversion would clip; with alpha where a value is none."""
    samples, bits = np.asarray(image).astype(np.int64), meaning.bits or 16
    if bits == 32:
        samples &= 0xFFFFFFFF  # Pillow holds them with a sign
    alpha = None
    if (clear := image.info.get("transparency")) is not None:
        alpha = Image.fromarray(np.where(samples == clear, 0, 255).astype(np.uint8))
    if bits > 16 and samples.max() < 1 << 16:  # as programs write 16 bits that have no narrower type
        bits = 16
    grey = (samples.clip(0, (1 << bits) - 1) >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(255 - grey if meaning.inverted else grey), alpha


def _apart(image: Image.Image, meaning: Meaning) -> tuple[Image.Image, Image.Image | None]:
    """Colours of mode L, RGB, CMYK or LAB, and alpha if there is any."""
    if image.mode in ("LA", "La"):
        image = image.convert("LA")
        return image.getchannel("L"), None if meaning.unused_alpha else image.getchannel("A")
    if image.has_transparency_data:
        clear = image.info.get("transparency")
        if meaning.bits == 16 and isinstance(clear, tuple):  # Pillow has kept the upper half of each sample
            image.info["transparency"] = tuple(value >> 8 for value in clear)
        elif meaning.bits and isinstance(clear, int):  # Pillow has stretched the samples to 8 bits
            image.info["transparency"] = clear * 255 // ((1 << meaning.bits) - 1)
        image = image.convert("RGBA")
        return image.convert("RGB"), None if meaning.unused_alpha else image.getchannel("A")
    if image.mode == "CMYK" and meaning.inverted:
        return ImageChops.invert(image), None
    return image if image.mode in ("L", "CMYK", "LAB") else image.convert("RGB"), None
