"""Stores that were renamed, copied or taken elsewhere: all artifacts are found, and the original is left alone."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow.entities import Run
from mlflow.tracking._tracking_service import utils
from sqlalchemy.engine import make_url

from ddpm.config import Config
from ddpm.tracking import finished
from ddpm.tracking import runs as tracking
from ddpm.tracking.database import location
from tests.support import ROOT
from tests.support.tracked import client, copy_store, runs

NAMES = ["feature%2Fx", "ü (100 %41)", "100%", "what?", "a#b&c=d;e", 'it\'s "here", [a+b] {c}', "~ \\n@ :"]


@pytest.fixture
def original(repository: Path, tracked: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of its own, in which a training has run."""
    root = copy_store(repository, tmp_path / "original")
    monkeypatch.chdir(root)
    record(tracked, root, "first")
    return root


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow remembers for the whole process where the artifacts of a run were."""
    monkeypatch.setattr(utils, "_artifact_repos_cache", Forgetful())


class Forgetful(dict):
    def __setitem__(self, key: object, value: object) -> None:
        pass


def record(config: Config, root: Path, content: str) -> Run:
    """A training whose only artifact holds this text."""
    note = root.parent / "note.txt"
    note.write_text(content)
    with tracking.training_run(config, content * 64) as run:
        run.artifacts(note)
    return runs(root, config)[0]


def read(root: Path, run: Run) -> str:
    """What the artifact of a run holds, by the paths in the database alone."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(client(root).download_artifacts(run.info.run_id, "note.txt", folder)).read_text()


def place(root: Path, run: Run) -> Path:
    return root / "mlartifacts" / run.info.run_id / "artifacts/note.txt"


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_after_a_new_name_old_and_new_artifacts_are_in_the_new_place(original, tracked, monkeypatch):
    moved = original.rename(original.with_name("moved to ü (100 $)"))
    monkeypatch.chdir(moved)
    record(tracked, moved, "second")
    assert not original.exists()
    new, old = runs(moved, tracked)
    assert (read(moved, old), read(moved, new)) == ("first", "second")
    assert (place(moved, old).read_text(), place(moved, new).read_text()) == ("first", "second")


def test_a_new_name_counts_also_where_something_else_has_the_old_one(original, tracked, monkeypatch):
    moved = original.rename(original.with_name("moved"))
    (original / ".dvc").mkdir(parents=True)
    (original / "mlartifacts").mkdir()
    monkeypatch.chdir(moved)
    record(tracked, moved, "second")
    assert set(files(original)) == set()
    assert [read(moved, run) for run in runs(moved, tracked)] == ["second", "first"]


def test_a_copy_never_writes_into_the_original(original, tracked, monkeypatch):
    before = files(original)
    copy = Path(shutil.copytree(original, original.with_name("copy")))
    monkeypatch.chdir(copy)
    record(tracked, copy, "second")
    with tracking.later_stage(tracked, "first" * 64) as run:
        run.artifacts(copy.parent / "note.txt", "scores")
    assert files(original) == before
    new, old = runs(copy, tracked)
    assert place(copy, new).read_text() == "second" and str(copy) in old.info.artifact_uri


def test_a_copy_of_the_database_alone_finds_the_artifacts_and_still_writes_nothing_into_the_original(
    original, tracked, monkeypatch
):
    copy = original.with_name("copy")
    (copy / ".dvc").mkdir(parents=True)
    for file in original.glob("mlflow.db*"):
        shutil.copy(file, copy)
    before = files(original)
    monkeypatch.chdir(copy)
    record(tracked, copy, "second")
    new, old = runs(copy, tracked)
    assert (read(copy, old), place(copy, new).read_text()) == ("first", "second")
    assert not place(copy, old).exists()

    extra = copy / "scores.txt"
    extra.write_text("10")
    with tracking.later_stage(tracked, "first" * 64) as run:
        run.artifacts(extra)
    assert files(original) == before
    (old,) = [run for run in runs(copy, tracked) if run.info.run_id == old.info.run_id]
    assert place(copy, old).read_text() == read(copy, old) == "first"
    assert place(copy, old).with_name("scores.txt").read_text() == "10"


def test_on_another_machine_runs_go_on_where_they_can_be_written(original, tracked, monkeypatch):
    copy = original.with_name("elsewhere")
    (copy / ".dvc").mkdir(parents=True)
    for file in original.glob("mlflow.db*"):
        shutil.copy(file, copy)
    shutil.rmtree(original)
    monkeypatch.chdir(copy)
    record(tracked, copy, "second")
    new, old = runs(copy, tracked)
    assert place(copy, new).read_text() == "second" and not original.exists()
    place(copy, old).parent.mkdir(parents=True)  # brought later
    place(copy, old).write_text("first")
    assert read(copy, old) == "first"


def test_artifacts_that_were_written_to_the_old_place_after_the_move_are_found(original, tracked, monkeypatch):
    late = record(tracked, original, "second")
    moved = original.rename(original.with_name("moved"))
    place(original, late).parent.mkdir(parents=True)
    place(moved, late).rename(place(original, late))
    shutil.rmtree(place(moved, late).parents[1])
    monkeypatch.chdir(moved)
    record(tracked, moved, "third")
    assert [read(moved, run) for run in runs(moved, tracked)] == ["third", "second", "first"]
    assert place(original, late).exists() and len(files(original)) == 1


@pytest.mark.parametrize("used", [True, False])
def test_an_experiment_that_somebody_gave_another_place_keeps_it(original, tracked, monkeypatch, used):
    disk = original.with_name("disk") / "mlartifacts"
    store = client(original)
    with closing(sqlite3.connect(original / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiments SET name = 'other' WHERE name = ?", (tracked.tracking.experiment,))
    store.create_experiment(tracked.tracking.experiment, disk.as_uri())
    if used:
        record(tracked, original, "second")
    moved = original.rename(original.with_name("moved"))
    monkeypatch.chdir(moved)
    run = record(tracked, moved, "third")
    assert (disk / run.info.run_id / "artifacts/note.txt").read_text() == "third"
    assert [read(moved, run) for run in runs(moved, tracked)] == ["third", "second"][: 1 + used]


def test_a_registered_model_is_found_too(original, tracked, monkeypatch):
    store = client(original)
    (run,) = runs(original, tracked)
    store.create_registered_model("flowers")
    store.create_model_version("flowers", run.info.artifact_uri, run.info.run_id)
    moved = original.rename(original.with_name("moved"))
    monkeypatch.chdir(moved)
    tracking.sync()
    version = client(moved).get_model_version("flowers", "1")
    assert version.source == place(moved, run).parent.as_uri()
    assert client(moved).get_model_version_download_uri("flowers", "1") == version.source


def test_sync_compare_and_all_stages_put_the_paths_right_and_only_once(original, tracked, monkeypatch):
    moved = original.rename(original.with_name("moved"))
    monkeypatch.chdir(moved)
    assert tracking.sync() == 0
    (run,) = runs(moved, tracked)
    assert read(moved, run) == "first"
    before = files(moved)
    tracking.sync()
    assert files(moved)["mlflow.db"] == before["mlflow.db"]
    again = moved.rename(original.with_name("again"))
    monkeypatch.chdir(again)
    found = finished.artifact(run.info.run_id, "note.txt", original.parent)
    assert found is not None and found.read_text() == "first"


def test_sync_makes_no_store(tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    assert tracking.sync() == 0
    assert {path.name for path in tmp_path.iterdir()} == {".dvc"}


NAMED = """
import sys
from pathlib import Path
from ddpm.config import load_config
from ddpm.tracking import finished
from ddpm.tracking import runs as tracking
from mlflow import MlflowClient

note = Path("note.txt")
note.write_text("first")
with tracking.training_run(load_config(sys.argv[1]), "a" * 64) as run:
    run.artifacts(note)
(found,) = MlflowClient("sqlite:///mlflow.db").search_runs(["1"])
Path("copy").mkdir()
assert finished.artifact(found.info.run_id, "note.txt", Path("copy")).read_text() == "first"
assert Path("mlartifacts", found.info.run_id, "artifacts/note.txt").exists()
"""


@pytest.mark.parametrize("name", NAMES)
def test_the_address_of_a_store_leads_to_its_file_whatever_the_folder_is_called(name, tmp_path, monkeypatch):
    root = tmp_path / name
    (root / ".dvc/tmp/exps/tmp1").mkdir(parents=True)
    for folder in (root, root / ".dvc/tmp/exps/tmp1"):
        monkeypatch.chdir(folder)
        for given in (None, f"sqlite:///{root}/mlflow.db", f"sqlite:///{quote(str(root))}/mlflow.db"):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", given or "")
            uri, database = location()
            opened = make_url(uri).database
            assert database == root / "mlflow.db" and opened is not None
            assert (folder / opened).resolve() == database
            assert Path(uri.removeprefix("sqlite:///")).parent.is_dir()  # else MLflow would create that folder


def test_a_store_in_a_folder_of_any_name_holds_whole_runs(tmp_path):
    root = tmp_path / "".join(NAMES)
    (root / ".dvc").mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-c", NAMED, str(ROOT / "params.yaml")],
        cwd=root,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [root.name]
