"""The folder of images and the synthetic flowers; Flowers-102 is in test_download.py."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from ddpm.config import parse_config
from ddpm.data.sources import choice
from ddpm.data.sources.drawing import FORMS, PALETTES, draw, kind
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.kinds import EXTENSIONS
from ddpm.data.sources.synthetic import Synthetic
from ddpm.runtime.errors import InputError


def picture(path, colour=(200, 30, 60), size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """Two classes, one image nested deeper, an upper-case extension, and things to pass over."""
    root = tmp_path / "photos"
    picture(root / "tulip" / "b.png", (1, 2, 3))
    picture(root / "tulip" / "A.JPG")
    picture(root / "rose" / "garden" / "c.webp")
    picture(root / "rose" / ".hidden.png")
    picture(root / ".cache" / "d.png")
    (root / "rose" / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def folder(tmp_path, photos):
    source = Folder(tmp_path / "raw", photos)
    source.fetch()
    return source


def test_importing_the_sources_imports_neither_torch_nor_matplotlib():
    code = (
        "import sys, ddpm.data.pictures, ddpm.data.preprocess, ddpm.data.sources.flowers102, ddpm.data.sources.folder; "
        "import ddpm.data.sources.synthetic; "
        "print([name for name in ('torch', 'torchvision', 'matplotlib') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_parameter_chooses_the_source_and_every_source_travels_to_a_worker(params, tmp_path):
    params["data"]["path"] = "photos"
    for name in ("flowers102", "folder", "synthetic"):
        params["data"]["source"] = name
        source = choice.make(parse_config(params).data, tmp_path)
        assert source.name == name
        assert pickle.loads(pickle.dumps(source)) == source


def test_folder_takes_the_first_sub_folder_as_class_and_sorts_by_path(folder):
    assert folder.class_names() == ["rose", "tulip"]
    assert [(item.id, item.label) for item in folder.items()] == [
        ("rose/garden/c.webp", 0),
        ("tulip/A.JPG", 1),
        ("tulip/b.png", 1),
    ]
    assert len(folder) == 3
    assert folder.open(list(folder.items())[2]).getpixel((0, 0)) == (1, 2, 3)


def test_manifest_states_bytes_and_checksums_and_nothing_of_this_machine(folder, photos):
    content = (photos / "tulip" / "b.png").read_bytes()
    lines = (folder.raw / "manifest.csv").read_text().splitlines()
    assert lines[0] == "id,label,bytes,sha256"
    assert lines[3] == f"tulip/b.png,1,{len(content)},{hashlib.sha256(content).hexdigest()}"
    assert json.loads((folder.raw / "source.json").read_text())["count"] == 3
    written = {path.name: path.read_bytes() for path in folder.raw.iterdir()}
    assert not any(str(photos.parent).encode() in content for content in written.values())
    folder.fetch()
    assert {path.name: path.read_bytes() for path in folder.raw.iterdir()} == written


def test_flat_folder_is_one_class_and_numbered_folders_keep_their_names(tmp_path):
    for name in EXTENSIONS:
        picture(tmp_path / "flat" / f"x{name}")
    flat = Folder(tmp_path / "raw", tmp_path / "flat")
    flat.fetch()
    assert flat.class_names() == ["images"]
    assert len(flat) == len(EXTENSIONS)
    for number in ("002", "001", "010"):
        picture(tmp_path / "numbered" / number / "y.png")
    numbered = Folder(tmp_path / "raw", tmp_path / "numbered")
    numbered.fetch()
    assert numbered.class_names() == ["001", "002", "010"]


def test_names_with_commas_quotes_and_accents_survive_the_manifest(tmp_path):
    names = ["a,b.png", 'say "hi".png', "été 花.png"]
    for name in names:
        picture(tmp_path / "photos" / name)
    source = Folder(tmp_path / "raw", tmp_path / "photos")
    source.fetch()
    assert [item.id for item in source.items()] == sorted(names)


def test_changed_added_and_removed_images_are_refused_with_the_remedy(folder, photos):
    remedy = "changed since `download`; run `dvc repro --force download`"
    items = list(folder.items())
    picture(photos / "tulip" / "b.png", (9, 9, 9))
    with pytest.raises(InputError, match=f"b.png: {remedy}"):
        folder.open(items[2])
    extra = picture(photos / "lily" / "new.png")
    with pytest.raises(InputError, match=f"new.png: {remedy}"):
        next(folder.items())
    extra.unlink()
    (photos / "tulip" / "A.JPG").unlink()
    with pytest.raises(InputError, match=f"A.JPG: {remedy}"):
        next(folder.items())
    with pytest.raises(InputError, match=f"A.JPG: {remedy}"):
        folder.open(items[1])


def ids(root):
    source = Folder(root / "raw", root / "photos")
    source.fetch()
    return [item.id for item in source.items()]


def test_links_to_folders_are_followed_but_loops_are_not(tmp_path):
    picture(tmp_path / "elsewhere" / "a.png")
    picture(tmp_path / "photos" / "tulip" / "b.png")
    (tmp_path / "photos" / "rose").symlink_to(tmp_path / "elsewhere")
    for name in ("loop", "again"):
        (tmp_path / "photos" / "tulip" / name).symlink_to(tmp_path / "photos")
    assert ids(tmp_path) == ["rose/a.png", "tulip/b.png"]


def test_a_folder_keeps_its_name_when_a_link_beside_it_leads_there_too(tmp_path):
    picture(tmp_path / "photos" / "tulip" / "a.png")
    (tmp_path / "photos" / "alias").symlink_to(tmp_path / "photos" / "tulip")
    assert ids(tmp_path) == ["tulip/a.png"]


def test_a_folder_that_cannot_be_listed_is_refused(folder, photos, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("rose"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"data\.path: .*rose cannot be read \(Permission denied\); permit it"):
        folder.fetch()


def test_missing_and_empty_folders_name_the_parameter(tmp_path):
    with pytest.raises(InputError, match=r"data\.path: .*nowhere is no folder"):
        Folder(tmp_path / "raw", tmp_path / "nowhere").fetch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"data\.path: .*empty holds no image"):
        Folder(tmp_path / "raw", tmp_path / "empty").fetch()
    with pytest.raises(InputError, match=r"manifest\.csv: no such file; run `dvc repro --force download`"):
        len(Folder(tmp_path / "none", tmp_path / "empty"))


def test_undecodable_file_name_is_refused(tmp_path):
    picture(tmp_path / "photos" / "line\nbreak.png")
    with pytest.raises(InputError, match=r"line\\nbreak.*rename"):
        Folder(tmp_path / "raw", tmp_path / "photos").fetch()


@pytest.mark.parametrize(
    "names", [["train/rose", "test/rose"], ["Train", "Test", "val"], ["train/rose", "train/tulip"], ["training", "dev"]]
)
def test_splits_are_no_classes(tmp_path, names):
    for name in names:
        picture(tmp_path / "photos" / name / "x.png")
    first = names[0].split("/")[0]
    with pytest.raises(
        InputError, match=rf"which are splits and no classes; name one of them, such as .*photos/{first}, "
    ):
        Folder(tmp_path / "raw", tmp_path / "photos").fetch()


@pytest.mark.parametrize("names", [["train", "tram"], ["test"], ["val", "rose"]])
def test_a_class_may_be_called_as_a_split_is(tmp_path, names):
    for name in names:
        picture(tmp_path / "photos" / name / "x.png")
    source = Folder(tmp_path / "raw", tmp_path / "photos")
    source.fetch()
    assert source.class_names() == sorted(names)


def test_a_class_in_two_unicode_forms_is_one(tmp_path):
    for form in ("NFC", "NFD"):
        picture(tmp_path / "photos" / unicodedata.normalize(form, "église") / f"{form}.png")
    picture(tmp_path / "photos/crème/x.png")
    source = Folder(tmp_path / "raw", tmp_path / "photos")
    source.fetch()
    assert source.class_names() == ["crème", "église"]
    assert sorted(item.label for item in source.items()) == [0, 1, 1]
    assert all(source.open(item).size == (12, 10) for item in source.items())


@pytest.mark.parametrize(("stored", "typed"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_the_folder_is_found_in_either_unicode_form(params, tmp_path, monkeypatch, stored, typed):
    (tmp_path / ".dvc").mkdir()
    picture(tmp_path / unicodedata.normalize(stored, "Blüten/été") / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    params["data"] |= {"source": "folder", "path": unicodedata.normalize(typed, "Blüten/été")}
    assert choice.make(parse_config(params).data, tmp_path / "raw").find().ids == ["a.png"]


def test_a_relative_path_starts_at_the_main_repository(params, tmp_path, monkeypatch):
    workspace = tmp_path / ".dvc" / "tmp" / "exps" / "tmp123"
    workspace.mkdir(parents=True)
    picture(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(workspace)
    params["data"] |= {"source": "folder", "path": "photos"}
    source = choice.make(parse_config(params).data, workspace / "raw")
    source.fetch()
    assert len(source) == 1


def test_drawn_pictures_follow_from_seed_and_index_alone():
    once = np.asarray(draw(3, 5, 1))
    draw(0, 0, 0)
    assert once.shape == (128, 128, 3)
    assert np.array_equal(once, np.asarray(draw(3, 5, 1)))
    for other in ((4, 5, 1), (3, 6, 1), (3, 5, 2)):
        assert not np.array_equal(once, np.asarray(draw(*other)))


def test_synthetic_items_take_turns_and_do_not_depend_on_the_count(tmp_path):
    source = Synthetic(tmp_path, 7, 3, 0)
    items = list(source.items())
    assert [item.label for item in items] == [0, 1, 2, 0, 1, 2, 0]
    assert len(source) == len({item.id for item in items}) == 7
    assert items == list(Synthetic(tmp_path, 100, 3, 0).items())[:7]


def test_all_102_drawn_kinds_differ():
    names = Synthetic(None, 1, 102, 0).class_names()
    assert len(set(names)) == 102
    assert names[0] == "pink primrose"
    assert len(FORMS) * len(PALETTES) >= 102
    assert {kind(label) for label in range(104)} == {(form, palette) for form in FORMS for palette in PALETTES}


def test_pictures_of_one_kind_share_their_colour():
    """A classifier, and so a score, can tell the kinds apart: the petals' hue separates them."""
    means = {
        label: np.mean([np.asarray(draw(0, index, label), float).mean((0, 1)) for index in range(6)], axis=0)
        for label in (3, 6)
    }
    red, blue = means[3], means[6]
    assert red[0] - red[2] > blue[0] - blue[2] + 20
