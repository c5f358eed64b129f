"""Image files made byte by byte, because Pillow does not write what they say: TIFF, PNG and BMP, and ICC profiles."""

import struct
import zlib

import numpy as np

SIDE = 8


def tiff(samples: np.ndarray, order: str = "<", **tags: int | tuple[int, ...]) -> bytes:
    """An uncompressed TIFF of (H, W) or (H, W, bands) samples in their type; tags by name, such as Photometric=0."""
    numbers = {"Bits": 258, "Photometric": 262, "Orientation": 274, "Extra": 338, "Format": 339, "Sub": 254}
    height, width = samples.shape[:2]
    bands = samples.shape[2] if samples.ndim == 3 else 1
    data = np.ascontiguousarray(samples).astype(samples.dtype.newbyteorder(order)).tobytes()
    entries: dict[int, tuple[int, ...]] = {
        256: (width,), 257: (height,), 258: (8 * samples.itemsize,) * bands, 259: (1,), 262: (1 if bands == 1 else 2,),
        273: (8,), 277: (bands,), 278: (height,), 279: (len(data),),
    }  # fmt: skip
    for name, value in tags.items():
        entries[numbers[name]] = value if isinstance(value, tuple) else (value,)
    start = 8 + len(data) + len(data) % 2
    after = start + 2 + 12 * len(entries) + 4
    ifd, extra = struct.pack(order + "H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        short = struct.pack(f"{order}{len(values)}H", *values)
        place = short.ljust(4, b"\0") if len(short) <= 4 else struct.pack(order + "I", after + len(extra))
        extra += short if len(short) > 4 else b""
        ifd += struct.pack(order + "HHI", tag, 3, len(values)) + place
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    return head + data.ljust(start - 8, b"\0") + ifd + bytes(4) + extra


def png(samples: np.ndarray, bits: int, colour: int, **chunks: bytes) -> bytes:
    """A PNG of (H, W) or (H, W, bands) samples, packed if of less than 8 bits; chunks by kind go before the pixels."""
    height, width = samples.shape[0], samples.shape[1] * 8 // bits if bits < 8 else samples.shape[1]
    rows = samples.astype(">u2" if bits == 16 else np.uint8).reshape(height, -1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = {"IHDR": struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0), **chunks, "IDAT": data, "IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind.encode(), content) for kind, content in parts.items())


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bmp32(colour: tuple[int, int, int, int]) -> bytes:
    """A BMP of 32 bits whose header (version 4) has a mask for alpha, all pixels of one (B, G, R, A)."""
    data = bytes(colour) * SIDE * SIDE
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = (
        struct.pack("<IiiHHIIiiII", 108, SIDE, SIDE, 1, 32, 3, len(data), 2835, 2835, 0, 0)
        + masks
        + b"BGRs"
        + bytes(48)
    )
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(data), 0, 0, 122) + info + data


def icc(space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    """An ICC profile of version 2."""
    entries, content, place = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        entries += name + struct.pack(">II", place + len(content), len(data))
        content += data + bytes(-len(data) % 4)
    white = struct.pack(">3i", 63190, 65536, 54061)
    head = struct.pack(">I4sI4s4s4s12x4s28x", place + len(content), b"", 0x02400000, kind, space, connection, b"acsp")
    return head + white + bytes(48) + struct.pack(">I", len(tags)) + entries + content


def gamma_curve(gamma: float) -> bytes:
    values = (np.linspace(0, 1, 512) ** gamma * 65535).round().astype(">u2").tobytes()
    return b"curv" + struct.pack(">II", 0, 512) + values


def point(x: float, y: float, z: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in (x, y, z)))


def matrix_profile(columns: list[tuple[float, float, float]], gamma: float) -> bytes:
    """Of RGB: XYZ of red, green and blue, adapted to D50, and one gamma."""
    colours = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), (point(*column) for column in columns), strict=True))
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma_curve(gamma))
    return icc(b"RGB ", b"XYZ ", {b"wtpt": point(0.9642, 1, 0.8249), **colours, **curves})


def grey_profile(gamma: float) -> bytes:
    return icc(b"GRAY", b"XYZ ", {b"wtpt": point(0.9642, 1, 0.8249), b"kTRC": gamma_curve(gamma)})


def ink_profile(lightness: int) -> bytes:
    """Of CMYK: black is black, every other ink makes the paper grey of this lightness (0 to 255); no ink is white."""
    lightnesses = (255 if corner == 0 else 0 if corner % 2 else lightness for corner in range(16))
    table = b"".join(bytes([each, 128, 128]) for each in lightnesses)
    ramp = bytes(range(256))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + table + ramp * 3
    return icc(b"CMYK", b"Lab ", {b"wtpt": point(0.9642, 1, 0.8249), b"A2B0": lut}, b"prtr")
