"""Photographs that are there twice are counted and named while they are packed."""

import numpy as np
from PIL import Image

from ddpm.data.preprocess import pack
from ddpm.data.sources.folder import Folder


def test_copies_are_said_whatever_their_metadata_and_format(tmp_path, capsys):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    for number, (kind, options) in enumerate([("PNG", {}), ("PNG", {"exif": exif}), ("TIFF", {})]):
        (tmp_path / f"class {number // 2}").mkdir(exist_ok=True)
        noise.save(tmp_path / f"class {number // 2}/{number}", kind, **options)
    for number in range(3, 6):
        Image.new("RGB", (9, 9), (40 * number, 0, 0)).save(tmp_path / f"class 0/{number}.png")
    source = Folder(tmp_path / "raw", tmp_path)
    source.fetch()
    summary = pack(source, 8, workers=1).summary
    assert summary["copies"] == [["class 0/0", "class 0/1", "class 1/2"]]
    printed = capsys.readouterr().out
    assert (
        "2 images have the same pixels as others (1 of them in two classes or more), such as class 0/1 and" in printed
    )
