"""Files of the user's where outputs belong; what DVC itself deletes is in tests/pipeline/test_own_files.py."""

import hashlib
import shutil
import subprocess

import pytest

from ddpm.runtime.errors import InputError
from ddpm.runtime.lineage import output_places
from ddpm.runtime.outputs import check_links, check_places
from tests.support import ROOT


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with this pipeline, in which nothing has run; the cache is where it is by default."""
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.setenv("PATH", "")  # no dvc to ask
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own(root, place, content=b"mine"):
    file = root / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def test_outputs_are_files_or_folders_of_which_each_has_one_purpose():
    """DVC deletes a folder with all that is in it, so none may be one in which people keep things."""
    folders = [place for place in output_places(ROOT / "dvc.yaml") if "." not in place.rsplit("/", 1)[1]]
    assert folders == ["data/raw/fetched", "data/weights/fetched"]


@pytest.mark.parametrize("place", ["models/model.safetensors", "reports/fid.md", "data/raw/fetched/rose/1.jpg"])
def test_a_first_run_over_a_file_that_dvc_has_not_kept_is_refused(root, place):
    own(root, place)
    with pytest.raises(InputError, match=rf"{place}: would be deleted, .* DVC has no copy; move or rename"):
        check_places()
    assert (root / place).read_bytes() == b"mine"


def test_of_many_files_some_are_named_and_all_are_counted(root):
    for number in range(9):
        own(root, f"data/raw/fetched/{number}.jpg")
    with pytest.raises(InputError, match=r"fetched/0.jpg, .*fetched/1.jpg, .*fetched/2.jpg and 6 more: would"):
        check_places()


def test_files_of_other_names_are_no_concern(root):
    for place in ("models/mine.safetensors", "data/raw/rose/1.jpg", "data/samples/1.png", "reports/explore/notes.md"):
        own(root, place)
    check_places()


def test_what_the_cache_holds_is_not_lost(root):
    own(root, "models/config.json", b"{}")
    md5 = hashlib.md5(b"{}").hexdigest()
    own(root, f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}", b"{}")
    check_places()


def test_after_the_first_run_the_places_are_those_of_the_pipeline(root):
    own(root, "models/config.json", b"half-written")
    own(root, "dvc.lock", b"schema: '2.0'\n")
    check_places()


def test_the_cache_is_looked_for_where_dvc_says(root, monkeypatch):
    own(root, "models/config.json", b"{}")
    md5 = hashlib.md5(b"{}").hexdigest()
    own(root, f"elsewhere/files/md5/{md5[:2]}/{md5[2:]}", b"{}")
    own(root, "bin/dvc", b"#!/bin/sh\necho elsewhere\n")
    (root / "bin/dvc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}/bin:/bin:/usr/bin")
    check_places()


@pytest.mark.parametrize("place", ["models", "data", "reports"])
def test_a_folder_of_outputs_on_another_disk_is_refused_before_any_work(root, tmp_path_factory, place):
    (root / place).symlink_to(tmp_path_factory.mktemp("scratch"))
    with pytest.raises(InputError, match=rf"^{place}.*: leads to /.* by a link.* `dvc cache dir FOLDER`"):
        check_links()


def test_links_of_the_cache_and_within_the_repository_are_no_concern(root, tmp_path_factory):
    own(root, "data/samples/grid.png")
    (root / "models").symlink_to(root / "data/samples")
    (root / "data/samples/samples.npy").symlink_to(tmp_path_factory.mktemp("cache") / "34abcd")
    check_links()


@pytest.mark.parametrize("name", [".ckpt", "mlartifacts", ".unsent", ".stage-times", "data/downloads", "photographs"])
def test_shared_folders_may_be_links_to_another_disk(tmp_path, name):
    """Neither git nor DVC is to see the link itself, which `git add -A` would commit."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(ROOT)
    assert subprocess.run(["git", "check-ignore", "-q", name], cwd=tmp_path, check=False).returncode == 0
    assert name in (ROOT / ".dvcignore").read_text().splitlines()
