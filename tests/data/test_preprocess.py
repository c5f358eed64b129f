import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.data.preprocess import pack, prepare, to_rgb, to_square
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.source import Item
from ddpm.data.sources.synthetic import Synthetic
from ddpm.runtime.errors import InputError, RunError

RNG = np.random.default_rng(0)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


class Memory:
    """A source of encoded images in memory."""

    name = "memory"

    def __init__(self, *encoded):
        self.encoded = encoded

    def __len__(self):
        return len(self.encoded)

    def left_out(self):
        return []

    def class_names(self):
        return ["all"]

    def items(self):
        for index, content in enumerate(self.encoded):
            yield Item(f"image {index}", 0, content)

    def open(self, item):
        return Image.open(io.BytesIO(item.payload))


def encode(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def prepared(content, image_size=8):
    source = Memory(content)
    return prepare(source, image_size, next(source.items()))


def gradient(width, height):
    """Red rises to the right, green rises downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation):
    upright = gradient(48, 32)
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = prepared(encode(stored, exif=exif), 16)
    assert (result.width, result.height) == (48, 32)
    assert np.array_equal(result.pixels, prepared(encode(upright), 16).pixels)
    assert result.pixels[0, -1, 0] > result.pixels[0, 0, 0] + 100
    assert result.pixels[-1, 0, 1] > result.pixels[0, 0, 1] + 200


@pytest.mark.parametrize(("size", "box"), [((14, 8), (3, 0)), ((8, 14), (0, 3)), ((13, 8), (2, 0)), ((8, 8), (0, 0))])
def test_the_central_square_is_kept_exactly(size, box):
    pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    left, top = box
    expected = pixels[top : top + 8, left : left + 8]
    assert np.array_equal(np.asarray(to_square(Image.fromarray(pixels), 8)), expected)


def test_scaling_down_averages_instead_of_skipping_pixels():
    checks = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    small = np.asarray(to_square(Image.fromarray(checks.astype(np.uint8)), 8))
    assert np.abs(small.astype(int) - 127).max() <= 3


def test_reduced_decoding_of_a_large_jpeg_is_close_to_full_decoding():
    smooth = Image.fromarray(RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize(
        (900, 600), Image.Resampling.BICUBIC
    )
    content = encode(smooth, "JPEG", quality=95)
    result = prepared(content, 16)
    full = np.asarray(to_square(Image.open(io.BytesIO(content)), 16))
    assert (result.width, result.height) == (900, 600)
    assert np.abs(result.pixels.astype(int) - full).mean() < 2


def test_transparency_becomes_white():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    assert to_rgb(clear).getpixel((0, 0)) == WHITE
    assert to_rgb(half).getpixel((0, 0)) == pytest.approx((255, 127, 127), abs=1)
    assert to_rgb(Image.new("LA", (8, 8), (0, 0))).getpixel((0, 0)) == WHITE
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([*BLUE, *GREEN])
    assert prepared(encode(palette)).pixels[0, 0].tolist() == list(GREEN)
    assert prepared(encode(palette, transparency=1)).pixels[0, 0].tolist() == list(WHITE)
    assert prepared(encode(palette, "GIF")).pixels[0, 0].tolist() == list(GREEN)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    grey = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    assert prepared(encode(grey, kind)).pixels[0, 0].tolist() == [128, 128, 128]


def test_grey_cmyk_and_bilevel_become_rgb():
    assert prepared(encode(Image.new("L", (8, 8), 77))).pixels[0, 0].tolist() == [77, 77, 77]
    assert prepared(encode(Image.new("1", (8, 8), 1))).pixels[0, 0].tolist() == list(WHITE)
    cyan = prepared(encode(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG")).pixels[0, 0]
    assert cyan.tolist() == pytest.approx([0, 255, 255], abs=4)


def test_floating_point_pixels_are_refused():
    content = encode(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
    with pytest.raises(InputError, match=r"image 0 cannot be read .*8 or 16 bits"):
        prepared(content)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_tiny_and_thin_images_work(size):
    result = prepared(encode(Image.new("RGB", size, RED)))
    assert (result.width, result.height) == size
    assert (result.pixels == RED).all()


def test_damaged_files_are_named():
    good = encode(gradient(200, 200), "JPEG")
    for bad in (b"", b"no image at all", good[: len(good) // 2], encode(gradient(99, 99))[:200]):
        with pytest.raises(
            InputError, match=r"data\.source memory: image 1 cannot be read as an image .*repair or remove"
        ):
            pack(Memory(good, bad, good, good), 8, workers=1)


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_images_for_the_scores_are_refused_before_any_work(count):
    with pytest.raises(InputError, match=rf"data\.source memory: {count} images are too few.* at least 4; add some"):
        pack(Memory(*[b"no image"] * count), 8)


class Deadly(Memory):
    """Its 51st image ends the worker that opens it, as the system does when memory runs out."""

    def open(self, item):
        if item.id == "image 50":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open(item)


@pytest.mark.timeout(120)
def test_a_killed_worker_is_one_sentence():
    # Larger than a pipe's buffer, so that the parent is stopped in the middle of handing out work.
    content = encode(Image.fromarray(RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8)))
    with pytest.raises(RunError, match="ended a worker process, most likely because memory ran out; free some"):
        pack(Deadly(*[content] * 400), 8, workers=2)


class Counted(Memory):
    """Counts the images that were read."""

    read = 0

    def items(self):
        for item in super().items():
            self.read += 1
            yield item


def test_encoded_images_are_read_only_a_little_ahead_of_the_work():
    source = Counted(b"no image", *[encode(Image.new("RGB", (8, 8), RED))] * 5000)
    with pytest.raises(InputError, match="image 0 cannot be read"):
        pack(source, 8, workers=2)
    assert source.read <= 2 * 3 * 16


@pytest.fixture
def photos(tmp_path):
    """40 random images of many sizes in three classes."""
    for index in range(40):
        width, height = RNG.integers(5, 90, 2)
        path = tmp_path / "photos" / f"class {index % 3}" / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    source = Folder(tmp_path / "raw", tmp_path / "photos")
    source.fetch()
    return source


def saved(packed, folder: Path) -> dict[str, bytes]:
    packed.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_bytes_do_not_depend_on_the_workers_or_the_run(photos, tmp_path):
    one = saved(pack(photos, 16, workers=1), tmp_path / "one")
    assert saved(pack(photos, 16, workers=1), tmp_path / "again") == one
    assert saved(pack(photos, 16, workers=2), tmp_path / "two") == one


def test_rows_labels_and_summary_belong_together(photos):
    packed = pack(photos, 16, workers=2)
    items = list(photos.items())
    assert packed.items["id"].tolist() == [item.id for item in items]
    assert packed.items["label"].tolist() == [item.label for item in items]
    assert np.array_equal(packed.images[7], prepare(photos, 16, items[7]).pixels)
    assert packed.summary == {
        "source": "folder",
        "image_size": 16,
        "count": 40,
        "class_names": ["class 0", "class 1", "class 2"],
        "class_counts": [14, 13, 13],
        "skipped": [],
    }


def test_errors_in_the_source_itself_reach_the_caller(photos):
    (photos.path / "class 0" / "00.png").unlink()
    with pytest.raises(InputError, match=r"00\.png: changed since"):
        pack(photos, 16, workers=2)


def test_drawn_pictures_need_no_file_at_all():
    packed = pack(Synthetic(None, 5, 2, 0), 32)
    assert packed.images.shape == (5, 32, 32, 3)
    assert set(packed.items["width"]) == {128}


class OneClassMore(Synthetic):
    """A source whose last class has lost its images."""

    def class_names(self):
        return [*super().class_names(), "nobody"]


def test_a_class_without_images_has_the_count_0():
    summary = pack(OneClassMore(None, 5, 3, 0), 8, workers=1).summary
    assert len(summary["class_counts"]) == len(summary["class_names"]) and summary["class_counts"][-1] == 0


def test_images_are_scaled_with_lanczos():
    image = Image.fromarray(RNG.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    assert np.array_equal(to_square(image, 8), image.resize((8, 8), Image.Resampling.LANCZOS))


def test_reduced_decoding_keeps_details_of_the_size_of_a_pixel():
    detailed = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8))
    content = encode(detailed.resize((400, 400), Image.Resampling.BICUBIC), "JPEG", quality=95)
    full = np.asarray(to_square(Image.open(io.BytesIO(content)), 32))
    assert np.abs(prepared(content, 32).pixels.astype(int) - full).mean() < 1
