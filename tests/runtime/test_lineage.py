"""The key of a stage changes with its inputs, and with nothing else."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ddpm.runtime.errors import InputError
from ddpm.runtime.lineage import origin, stage_key, stage_outputs
from tests.support import ROOT

PIPELINE = """
stages:
  train:
    cmd: python -m stages.train
    deps: [ddpm/network/unet.py, data/processed]
    params: [schedule, train, data.holdout]
  fid:
    cmd: python -m stages.fid
"""
PARAMS = {
    "schedule": "linear",
    "epochs": 3,
    "train": {"lr": 1e-4, "batch_size": 8},
    "data": {"holdout": 0.1, "path": None},
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "ddpm/network").mkdir(parents=True)
    (tmp_path / "ddpm/network/unet.py").write_text("layers = 1\n")
    (tmp_path / "data/processed/more").mkdir(parents=True)
    (tmp_path / "data/processed/images.npy").write_bytes(b"images")
    (tmp_path / "data/processed/more/ids.csv").write_bytes(b"ids")
    return tmp_path


def key(repository: Path, stage: str = "train", **params: object) -> str:
    return stage_key(stage, PARAMS | params, repository / "dvc.yaml")


def edit(repository: Path, name: str, old: str, new: str) -> None:
    path = repository / name
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    "params",
    [
        {"schedule": "cosine"},
        {"train": {"lr": 2e-4, "batch_size": 8}},
        {"train": {"lr": 1e-4, "batch_size": 8, "flip": True}},
        {"data": {"holdout": 0.2, "path": None}},
    ],
)
def test_a_listed_param_changes_the_key(repository: Path, params: dict) -> None:
    assert key(repository, **params) != key(repository)


@pytest.mark.parametrize("params", [{"epochs": 4}, {"data": {"holdout": 0.1, "path": "photos"}}])
def test_an_unlisted_param_does_not(repository: Path, params: dict) -> None:
    assert key(repository, **params) == key(repository)


def test_the_order_of_params_does_not(repository: Path) -> None:
    assert key(repository, train={"batch_size": 8, "lr": 1e-4}) == key(repository)


@pytest.mark.parametrize("name", ["ddpm/network/unet.py", "data/processed/images.npy", "data/processed/more/ids.csv"])
def test_the_bytes_of_a_dependency_change_the_key(repository: Path, name: str) -> None:
    before = key(repository)
    (repository / name).write_bytes(b"other")
    assert key(repository) != before


def test_so_do_new_and_renamed_files_of_a_folder(repository: Path) -> None:
    processed = repository / "data/processed"
    keys = [key(repository)]
    (processed / "images.npy").rename(processed / "pictures.npy")
    keys.append(key(repository))
    (processed / "empty").touch()
    keys.append(key(repository))
    assert len(set(keys)) == 3


def test_so_does_the_command_but_not_another_stage(repository: Path) -> None:
    before = key(repository)
    edit(repository, "dvc.yaml", "stages.fid", "stages.score")
    assert key(repository) == before
    edit(repository, "dvc.yaml", "stages.train", "stages.learn")
    assert key(repository) != before


def test_times_bytecode_and_the_current_folder_do_not(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(repository)
    os.utime(repository / "ddpm/network/unet.py", (0, 0))
    cache = repository / "data/processed/__pycache__"
    cache.mkdir()
    (cache / "x.cpython-311.pyc").write_bytes(b"bytecode")
    (cache / "x.tmp").write_bytes(b"half of it")
    assert key(repository) == before
    monkeypatch.chdir(repository)
    assert stage_key("train", PARAMS) == before
    moved = repository.rename(tmp_path_factory.mktemp("elsewhere") / "repository")
    assert key(moved) == before


def test_a_stage_with_neither_params_nor_deps_has_a_key(repository: Path) -> None:
    assert len(key(repository, "fid")) == 64
    assert key(repository, "fid") != key(repository)


@pytest.mark.parametrize(
    ("stage", "old", "new", "named"),
    [
        ("train", "ddpm/network/unet.py", "ddpm/gone.py", "ddpm/gone.py"),
        ("train", "data.holdout", "data.houldout", "data.houldout"),
        ("train", "schedule", "schedule.name", "schedule.name"),
        ("sample", "", "", "sample"),
    ],
)
def test_what_is_missing_is_named(repository: Path, stage: str, old: str, new: str, named: str) -> None:
    edit(repository, "dvc.yaml", old, new)
    with pytest.raises(InputError, match=named):
        key(repository, stage)


def test_a_missing_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dvc\.yaml"):
        key(tmp_path)


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Git in an empty folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_BASELINE_REV", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return lambda *words: subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words], check=True)


def test_a_run_without_a_commit_says_why(git, monkeypatch, capsys) -> None:
    def fault(words: str) -> str:
        tags = origin()
        assert "git.commit" not in tags and "git.modified" not in tags
        assert tags["git.fault"].startswith(words)
        said = f"git: {tags['git.fault']}; so this run is recorded without a commit\n"
        assert capsys.readouterr().out == ("" if words.startswith("not ") else said)
        return tags["git.fault"]

    fault("not a git repository")  # but a copy of the code
    git("init", "-q")
    fault("there is no commit yet")
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert origin()["git.modified"] == "false" and "git.fault" not in origin()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own, for its tests
    assert f"git config --global --add safe.directory {Path.cwd()}" in fault("detected dubious ownership")
    monkeypatch.setenv("PATH", str(Path.cwd()))
    fault("not installed")


def test_the_commit_of_an_experiment_is_recorded_also_where_git_cannot_compare(git, monkeypatch, capsys) -> None:
    git("init", "-q")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "a" * 40)
    tags = origin()
    assert tags["git.commit"] == "a" * 40 and "git.modified" not in tags
    assert "without its changes" in capsys.readouterr().out


def test_outputs_of_a_stage_are_named_with_metrics() -> None:
    assert stage_outputs("fid", ROOT / "dvc.yaml") == [
        Path("reports/scores/nearest.png"),
        Path("reports/scores/scores.json"),
        Path("reports/fid.json"),
    ]


@pytest.mark.parametrize("name", ["ddpm/a.py", "stages/a.py", "dvc.yaml"])
def test_code_that_differs_from_its_commit_is_recorded_as_modified(git, name: str) -> None:
    for path in map(Path, ("ddpm/a.py", "stages/a.py", "dvc.yaml", "README.md")):
        path.parent.mkdir(exist_ok=True)
        path.write_text("as committed\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    Path("README.md").write_text("no code\n")
    assert origin()["git.modified"] == "false"
    Path(name).write_text("changed\n")
    assert origin()["git.modified"] == "true"
