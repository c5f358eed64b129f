"""Stores that open and yet take nothing: deleted experiments, other versions; one sentence, once, with the way back."""

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ddpm.config import Config
from ddpm.runtime.errors import InputError
from ddpm.tracking import finished
from ddpm.tracking import runs as tracking
from tests.support import ROOT
from tests.support.tracked import TRAIN, client, copy_store, runs, score, train, unsent_folders


@pytest.fixture
def root(repository: Path, tracked: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of its own, in which a training has run."""
    root = copy_store(repository, tmp_path / "the repository")
    monkeypatch.chdir(root)
    train(tracked)
    return root


def delete(root: Path, config: Config) -> None:
    experiment = client(root).get_experiment_by_name(config.tracking.experiment)
    client(root).delete_experiment(experiment.experiment_id)


def set_version(root: Path, version: str) -> None:
    with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))


def fault(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_deleted_experiment_is_one_sentence_from_every_command_and_nothing_is_lost(root, tracked, capfd):
    delete(root, tracked)
    train(tracked)
    score(tracked, fid=10.0)
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2 and said[0] == said[1]  # of two stages
    assert said[0].startswith(f"warning: the MLflow experiment {tracked.tracking.experiment!r} was deleted; `MLFLOW_")
    assert "kept in .unsent/" in said[0] and len(unsent_folders(root)) == 2
    sentence = fault(tracking.sync)
    assert fault(lambda: finished.scored_runs(tracked.tracking.experiment)) == sentence
    assert sentence in said[0]

    way_back = sentence.split("`")[1]
    command = shlex.split(way_back.replace("mlflow ", f"{shlex.quote(sys.executable)} -m mlflow ", 1))
    subprocess.run(["env", *command], check=True, capture_output=True)
    assert tracking.sync() == 1  # two stages of one run
    assert [run.data.metrics for run in runs(root, tracked)] == [{"loss": 0.5, "fid": 10.0}, {"loss": 0.5}]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("cfd24bdc0731", ["written by an older MLflow", "keep a copy of it", "`mlflow db upgrade "]),
        ("9" * 12, ["written by a newer MLflow", "install that"]),
    ],
)
def test_a_database_of_another_version_is_left_as_it_is(root, tracked, capfd, version, words):
    set_version(root, version)
    before = (root / "mlflow.db").read_bytes()
    train(tracked)
    (said,) = capfd.readouterr().err.splitlines()
    for sentence in (said, fault(tracking.sync), fault(lambda: finished.scored_runs(tracked.tracking.experiment))):
        assert all(word in sentence for word in words) and str(root / "mlflow.db") in sentence
    assert (root / "mlflow.db").read_bytes() == before and len(unsent_folders(root)) == 1


def test_the_command_that_brings_a_database_up_to_date_is_one_for_a_shell(root, tracked):
    set_version(root, "cfd24bdc0731")
    *_, address = shlex.split(fault(tracking.sync).split("`")[1])
    assert address == f"sqlite:///{root / 'mlflow.db'}"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_that_is_deleted_in_mid_run_costs_a_warning_and_gets_the_rest_later(root, tracked, capfd, replaced):
    with tracking.training_run(tracked, TRAIN) as run:
        run.metrics({"loss": 1.0}, step=1)
        for file in root.glob("mlflow.db*"):
            file.rename(root.parent / file.name)
        if replaced:
            shutil.copy(root.parent / "mlflow.db", root)
        run.metrics({"loss": 0.5}, step=2)
    (said,) = capfd.readouterr().err.splitlines()
    assert "mlflow.db was deleted or replaced" in said and len(unsent_folders(root)) == 1
    command = [sys.executable, "-m", "ddpm", "sync"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("Sent 1 run.\n", "")
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        tables = "metrics JOIN runs USING (run_uuid) JOIN experiments USING (experiment_id)"
        question = f"SELECT step, value FROM {tables} WHERE key = 'loss' AND step = 2 AND experiments.name = ?"
        points = connection.execute(question, (tracked.tracking.experiment,)).fetchall()
    assert points == [(2, 0.5)]


@pytest.mark.parametrize("address", ["file:///somewhere/mlruns", "./mlruns", "/somewhere/mlruns", "~/mlruns"])
def test_a_folder_of_runs_of_older_versions_is_refused_with_the_way_on(root, tracked, monkeypatch, capfd, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    train(tracked)
    (said,) = capfd.readouterr().err.splitlines()
    assert f"MLFLOW_TRACKING_URI: found {address!r}, a folder of runs" in said and "mlflow migrate-filestore" in said
    assert said.startswith("warning: MLFLOW_TRACKING_URI") and len(unsent_folders(root)) == 1
