"""Which files of a folder are used, left out with a reason, or no concern: by content, whatever they are called."""

import io
import json
import os

import pytest
from PIL import Image, TiffImagePlugin

from ddpm.data.preprocess import pack
from ddpm.data.sources import kinds
from ddpm.data.sources.folder import SYSTEM_FOLDERS, Folder
from ddpm.data.sources.kinds import FORMATS, kind_of, left_out
from ddpm.runtime.errors import InputError


def encoded(kind, mode="RGB", **options):
    stream = io.BytesIO()
    Image.new(mode, (12, 10), 77).save(stream, kind, **options)
    return stream.getvalue()


def boxes(brand, *compatible):
    names = b"".join((brand, bytes(4), *compatible))
    return (8 + len(names)).to_bytes(4, "big") + b"ftyp" + names + bytes(100)


OTHERS = {
    "HEIF": boxes(b"heic", b"mif1"),
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40),
    "PSD": b"8BPS\0\1" + bytes(40),
    "camera raw": boxes(b"crx ", b"isom"),
    "QOI": b"qoif" + bytes(40),
}
NO_IMAGES = {
    "notes": b"P3 is the third point\n",
    "letter": b"BM is short for Bitmap, and this is text about it",
    "film.mov": boxes(b"qt  "),
    "film.mp4": boxes(b"isom", b"mp42"),
    "Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(60),
    "page.pdf": b"%PDF-1.7",
    "empty": b"",
}


@pytest.mark.parametrize("name", ["x", "x.jpg", "x.HEIC", "x.txt", "x.dat", "IMG 1.JPG.bak"])
@pytest.mark.parametrize("kind", [name for name in FORMATS if name != "HEIF"])
def test_what_pillow_decodes_is_used_under_any_name(tmp_path, kind, name):
    content = encoded(kind)
    assert kind_of(content[:64]) == kind
    (tmp_path / name).write_bytes(content)
    assert left_out(tmp_path / name) == ""


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("PPM", b"P1\n# a note\n8 8\n"),
        ("PPM", b"P5 8 8 255\n"),
        ("JPEG2000", b"\xff\x4f\xff\x51\0\0"),
        ("AVIF", boxes(b"mif1", b"miaf", b"avif")),
        ("HEIF", boxes(b"mif1", b"heic")),
        ("TIFF", b"MM\0*\0\0\0\x08"),
        ("TIFF", b"II+\0\x08\0\0\0"),
        ("camera raw", b"II*\0\x10\0\0\0CR\2\0"),
        ("GIF", b"GIF87a\1\0"),
        (None, b"BM" + bytes(62)),
        (None, b"RIFF\0\0\0\0WAVE"),
        (None, b"\0\0\0\x01ftyp"),
    ],
)
def test_kinds_by_their_first_bytes(kind, content):
    assert kind_of(content) == kind


@pytest.mark.parametrize("name", ["x", "x.jpg", "x.jxl", "IMG_0001.HEIC"])
@pytest.mark.parametrize("kind", OTHERS)
def test_what_cannot_be_decoded_is_left_out_with_its_kind_whatever_its_name(tmp_path, kind, name, monkeypatch):
    monkeypatch.setattr(kinds, "FORMATS", kinds.BUILT_IN)
    (tmp_path / name).write_bytes(OTHERS[kind])
    reason = left_out(tmp_path / name)
    assert reason.startswith(
        "HEIC, which needs pillow-heif" if kind == "HEIF" else f"{kind}, which is not decoded here"
    )


@pytest.mark.parametrize("name", ["x.svg", "x.NEF", "x.ico", "x.heic"])
def test_a_name_of_another_format_is_said_though_its_content_says_nothing(tmp_path, name):
    (tmp_path / name).write_bytes(b"<svg/>")
    assert left_out(tmp_path / name) == f"{name[1:].lower()} is not decoded here; export it as JPEG, PNG or TIFF"


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_no_concern(tmp_path, name):
    (tmp_path / name).write_bytes(NO_IMAGES[name])
    assert left_out(tmp_path / name) is None


def test_pipes_and_dead_links_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    assert (
        left_out(tmp_path / "pipe") is None
        and left_out(tmp_path / "link") == "cannot be read (No such file or directory)"
    )
    os.mkfifo(tmp_path / "pipe.jpg")
    assert left_out(tmp_path / "pipe.jpg") == "", "its name is that of an image: the manifest refuses it"


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_the_thumbnail_in_a_camera_s_raw_file_is_not_the_photograph(tmp_path, tags):
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        ifd[tag] = value
        ifd.tagtype[tag] = 4 if tag == 254 else 7
    (tmp_path / "x.dng").write_bytes(encoded("TIFF", tiffinfo=ifd))
    (tmp_path / "scan.dng").write_bytes(encoded("TIFF"))
    assert left_out(tmp_path / "x.dng").startswith("camera raw") and left_out(tmp_path / "scan.dng") == ""


def test_what_is_left_out_is_named_counted_and_in_the_summary(tmp_path, capsys):
    (tmp_path / "photos/rose").mkdir(parents=True)
    for number in range(4):
        (tmp_path / f"photos/rose/{number}").write_bytes(encoded("JPEG"))
    (tmp_path / "photos/rose/line\nbreak.jxl").write_bytes(OTHERS["JPEG XL"])
    for name in ("a.psd", "b.psd"):
        (tmp_path / "photos" / name).write_bytes(OTHERS["PSD"])
    source = Folder(tmp_path / "raw", tmp_path / "photos")
    source.fetch()
    printed = capsys.readouterr().out
    assert "4 images; 3 left out, which the report lists: 'rose/line\\nbreak.jxl' (JPEG XL" in printed
    assert "a.psd and 1 more (PSD, which" in printed
    listed = [one["id"] for one in pack(source, 8, workers=1).summary["skipped"]]
    assert listed == ["'rose/line\\nbreak.jxl'", "a.psd", "b.psd"]
    assert json.loads((tmp_path / "raw/source.json").read_text())["count"] == 4


@pytest.mark.parametrize("name", [*SYSTEM_FOLDERS, "@eaDir", "$RECYCLE.BIN", "__MACOSX", "System Volume Information"])
def test_folders_of_the_system_are_no_classes_at_any_depth(tmp_path, name):
    for folder in ("rose", f"{name}/rose", f"rose/{name}/1.jpg"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "photos" / folder / f"{number}.jpg").write_bytes(encoded("JPEG"))
    found = Folder(tmp_path / "raw", tmp_path / "photos").find()
    assert found.ids == [f"rose/{number}.jpg" for number in range(4)]
    assert {one["id"] for one in found.left_out} == {name, f"rose/{name}"}


def test_a_folder_of_heic_alone_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(kinds, "FORMATS", kinds.BUILT_IN)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/IMG_1.HEIC").write_bytes(OTHERS["HEIF"])
    with pytest.raises(InputError, match=r"no image that can be decoded; 1 left out: IMG_1.HEIC \(HEIC.*pip install"):
        Folder(tmp_path / "raw", tmp_path / "photos").find()


def test_heic_is_used_where_pillow_heif_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    (tmp_path / "photos").mkdir()
    for number in range(4):
        image = Image.new("RGB", (48, 32), (40 * number, 99, 200))
        pillow_heif.from_pillow(image).save(tmp_path / f"photos/{number}.HEIC", quality=100, chroma=444)
    source = Folder(tmp_path / "raw", tmp_path / "photos")
    source.fetch()
    packed = pack(source, 8, workers=1)
    assert packed.images[2, 4, 4].tolist() == pytest.approx([80, 99, 200], abs=4)
    assert packed.items.loc[0, ["width", "height"]].tolist() == [48, 32]
