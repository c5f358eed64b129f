"""A user's own files beside the outputs survive whatever DVC does there: a run, an experiment, a checkout."""

import hashlib
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.support.tiny_repository import call, make_repository, stages_run

FOLDERS = ("data/raw", "data/weights", "data/processed", "data/reference", "data/samples", "models")
REPORTS = ("reports/curves", "reports/explore", "reports/samples", "reports/scores", "reports/pictures")


def add_photographs(folder: Path) -> None:
    for name in ("rose", "tulip"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (20, 18), (40 * number, 99, 200)).save(folder / name / f"{number}.png")


def own_files(root: Path) -> dict[str, str]:
    files = [file for folder in (*FOLDERS, *REPORTS) for file in (root / folder).rglob("*") if "mine" in file.name]
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in [*files, *root.glob("data/raw/*/*.png")]
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with files of the user's own in every folder of outputs, and photographs in data/raw."""
    root = make_repository(tmp_path_factory.mktemp("own") / "repository")
    add_photographs(root / "data/raw")
    for folder in (*FOLDERS, *REPORTS):
        (root / folder / "my own").mkdir(parents=True)
        for name in ("mine.bin", "my own/mine.txt"):
            (root / folder / name).write_bytes(folder.encode())
    return root


@pytest.mark.slow
def test_photographs_and_own_files_survive_runs_experiments_and_checkouts(root):
    before = own_files(root)
    assert len(before) == 2 * 11 + 12
    options = ("-S", "data.source=folder", "-S", "data.path=data/raw")
    (root / "models/model.safetensors").write_bytes(b"a model of the user's")
    output = call(root, "dvc", "repro", check=False)
    assert "models/model.safetensors: would be deleted" in output and stages_run(output) == ["download"]
    assert (root / "models/model.safetensors").read_bytes() == b"a model of the user's"
    (root / "models/model.safetensors").unlink()

    assert len(stages_run(call(root, "dvc", "exp", "run", *options))) == 8
    assert own_files(root) == before
    assert (root / "data/processed/items.csv").read_text().count(".png") == 12
    assert yaml.safe_load((root / "dvc.lock").read_text())["stages"]["train"]["outs"][0]["path"] == "models/config.json"

    assert stages_run(call(root, "dvc", "repro")) == [], "files beside the outputs are no change"
    call(root, "dvc", "exp", "run", "-S", "schedule=cosine")
    call(root, "dvc", "repro", "--force", "train")
    call(root, "dvc", "checkout", "--force")
    assert own_files(root) == before
