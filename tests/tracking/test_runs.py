"""Runs in real SQLite stores: where they land, how they end, and that a failing store costs nothing else."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from ddpm.config import Config
from ddpm.tracking import runs as tracking
from tests.support import ROOT
from tests.support.tracked import TRAIN, changed, client, runs, score, train

ONE_RUN = f"""
import sys
from ddpm.tracking import runs as tracking
from ddpm.config import load_config
from ddpm.tracking import recorder
recorder.PATIENCE = 60  # seconds; four of them make MLflow's tables while other tests run
with tracking.training_run(load_config({str(ROOT / "params.yaml")!r}), sys.argv[1]) as run:
    run.metrics({{"loss": 1.0}}, step=1)
"""


@pytest.fixture
def config(tracked: Config) -> Config:
    return tracked


@pytest.mark.parametrize("by_environment", [True, False])
def test_a_run_from_a_temporary_workspace_lands_in_the_main_repository(
    repository: Path, config: Config, by_environment: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = repository / f".dvc/tmp/exps/tmp{by_environment}"
    (workspace / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(workspace)
    if by_environment:
        monkeypatch.setenv("DVC_ROOT", str(repository))
        monkeypatch.setenv("DVC_EXP_NAME", "loamy-vole")
    (tmp_path / "grid.txt").write_text("grid")

    with tracking.training_run(config, TRAIN) as tracker:
        tracker.tags({"device": "cpu"})
        for step in (1, 2):
            tracker.metrics({"loss": 1 / step, "lr": 0.1}, step=step)
            tracker.image("samples", np.full((8, 8, 3), step, np.uint8), step=step)
        tracker.artifacts(tmp_path / "grid.txt")
        tracker.artifacts(tmp_path, "folder")

    assert {path.name for path in workspace.iterdir()} == {".dvc"}
    monkeypatch.chdir(repository)
    (run,) = runs(repository, config)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "linear · 700 epochs"
    assert run.data.params["schedule"] == "linear"
    assert run.data.params["train.lr"] == "0.0002"
    assert not any(name.startswith(("sample", "fid", "tracking")) for name in run.data.params)
    assert run.data.tags["pipeline.key"] == TRAIN
    assert run.data.tags["device"] == "cpu"
    assert run.data.tags.get("dvc.exp_name") == ("loamy-vole" if by_environment else None)
    curve = client(repository).get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in curve] == [(1, 1.0), (2, 0.5)]
    folder = repository / "mlartifacts" / run.info.run_id / "artifacts"
    assert (folder / "grid.txt").read_text() == (folder / "folder/grid.txt").read_text() == "grid"
    assert len(list(folder.glob("images/samples+step+*.png"))) == 2


def test_mlflow_finds_the_store_without_flags(
    repository: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config)
    monkeypatch.chdir(repository)
    found = MlflowClient(tracking_uri="sqlite:///mlflow.db")  # what `mlflow ui` uses by default, in the root
    assert found.get_experiment_by_name(config.tracking.experiment) is not None


def test_the_commit_is_recorded(
    repository: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setenv("DVC_ROOT", str(repository))
    monkeypatch.chdir(tmp_path)
    train(config)
    assert runs(repository, config)[0].data.tags["git.commit"] == commit


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_a_training_that_breaks_off_says_so(
    repository: Path, config: Config, error: type[BaseException], status: str
) -> None:
    with pytest.raises(error), tracking.training_run(config, TRAIN) as tracker:
        tracker.metrics({"loss": 1.0})
        raise error
    (run,) = runs(repository, config)
    assert run.info.status == status
    assert run.data.metrics == {"loss": 1.0}


def test_a_resumed_training_goes_on_in_its_run_without_repeating_a_point(repository: Path, config: Config) -> None:
    with pytest.raises(ValueError, match="killed"), tracking.training_run(config, TRAIN) as tracker:
        for step in (1, 2, 3):
            tracker.metrics({"loss": 1 / step}, step=step)
        tracker.metrics({"heldout_loss": 0.9}, step=2)
        raise ValueError("killed")
    with tracking.training_run(config, TRAIN, resumed=True) as tracker:  # from a checkpoint after step 1
        for step in (2, 3, 4):
            tracker.metrics({"loss": 1 / step}, step=step)
            tracker.metrics({"heldout_loss": 0.9}, step=step)
    (run,) = runs(repository, config)
    assert run.info.status == "FINISHED"
    store = client(repository)
    assert [point.step for point in store.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3, 4]
    assert [point.step for point in store.get_metric_history(run.info.run_id, "heldout_loss")] == [2, 3, 4]

    train(config)  # from the start
    with tracking.training_run(config, TRAIN, resumed=True):
        pass  # the checkpoint has outlived the end of the training, whose outputs DVC could not store
    assert [run.info.status for run in runs(repository, config)] == ["FINISHED", "FINISHED"]


def test_a_training_is_called_by_its_sampler_too_once_it_is_scored(repository: Path, config: Config) -> None:
    train(config)
    assert runs(repository, config)[0].info.run_name == "linear · 700 epochs"
    score(changed(config, "sample", sampler="dpmpp_2m", steps=20), fid=10.0)
    (run,) = runs(repository, config)
    assert run.info.run_name == "linear · 700 epochs · dpmpp_2m 20"


def test_a_name_that_somebody_gave_a_run_stays(repository: Path, config: Config) -> None:
    train(config)
    client(repository).update_run(runs(repository, config)[0].info.run_id, name="mine")
    score(config, fid=10.0)
    assert [run.info.run_name for run in runs(repository, config)] == ["mine"]


def test_scores_against_other_real_images_have_a_run_of_their_own(repository: Path, config: Config) -> None:
    train(config)
    score(config, fid=10.0)
    score(changed(config, "fid", reference="heldout"), fid=20.0)
    found = {run.data.params["fid.reference"]: run.data.metrics["fid"] for run in runs(repository, config)}
    assert found == {"all": 10.0, "heldout": 20.0}


def test_scores_join_the_training_without_touching_its_end(repository: Path, config: Config) -> None:
    train(config)
    (before,) = runs(repository, config)
    score(config, fid=10.0)
    score(changed(config, "fid", batch_size=7), fid=9.0)  # decides nothing, so the same scores again
    (after,) = runs(repository, config)
    assert after.info.status == "FINISHED"
    assert (after.info.start_time, after.info.end_time) == (before.info.start_time, before.info.end_time)
    assert after.data.metrics == {"loss": 0.5, "fid": 9.0}
    assert after.data.params["sample.sampler"] == "ddim"
    assert after.data.params["fid.batch_size"] == "100"


def test_scores_join_the_finished_training_not_a_later_failure(repository: Path, config: Config) -> None:
    train(config)
    with pytest.raises(SystemExit), tracking.training_run(config, TRAIN):
        raise SystemExit(143)
    score(config, fid=10.0)
    assert [(run.info.status, "fid" in run.data.metrics) for run in runs(repository, config)] == [
        ("KILLED", False),
        ("FINISHED", True),
    ]


def test_other_sampler_settings_get_one_child_run(repository: Path, config: Config) -> None:
    ancestral = changed(config, "sample", sampler="ddpm", steps=1000)
    train(config)
    score(config, fid=10.0)
    time.sleep(0.002)
    score(ancestral, fid=8.0)
    score(ancestral, fid=7.0)
    score(config, fid=11.0)
    child, parent = runs(repository, config)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["pipeline.key"] == TRAIN
    assert child.info.run_name == "linear · 700 epochs · ddpm 1000"
    assert child.info.status == parent.info.status == "FINISHED"
    assert (child.data.metrics["fid"], parent.data.metrics["fid"]) == (7.0, 11.0)
    assert (child.data.params["sample.steps"], parent.data.params["sample.steps"]) == ("1000", "100")
    assert child.data.params["train.lr"] == parent.data.params["train.lr"]


def test_parallel_scores_of_one_training_never_share_a_run(repository: Path, config: Config) -> None:
    train(config)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda index: score(changed(config, "sample", steps=index + 1), fid=index), range(4)))
    found = runs(repository, config)
    assert sorted(run.data.metrics["fid"] for run in found) == [0, 1, 2, 3]
    assert sum("mlflow.parentRunId" in run.data.tags for run in found) == 3


def test_an_unknown_training_gets_a_run_of_its_own(
    repository: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="no weights"), tracking.later_stage(config, TRAIN):
        raise ValueError("no weights")
    assert "opening a new one" in capsys.readouterr().out
    (failed,) = runs(repository, config)
    assert failed.info.status == "FAILED"

    score(config, fid=10.0)
    assert capsys.readouterr().out == ""
    (run,) = runs(repository, config)
    assert run.info.run_id == failed.info.run_id
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "linear · 700 epochs · ddim 100"
    assert run.data.params["epochs"] == "700"
    assert run.data.params["sample.steps"] == "100"


def test_disabled_tracking_does_nothing(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    off = changed(config, "tracking", enabled=False)
    with tracking.training_run(off, TRAIN) as tracker, tracking.later_stage(off, TRAIN) as later:
        for each in (tracker, later):
            each.metrics({"loss": 1.0})
            each.image("samples", np.zeros((2, 2, 3), np.uint8), step=0)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_"))}
    return kept | {"PYTHONPATH": str(ROOT)}


def test_four_cold_processes_share_a_new_store(tmp_path: Path, environment: dict[str, str]) -> None:
    for name in ("x.db.init", "x.db.init-wal", "x.db-journal"):
        (tmp_path / name).write_text("left by a process that was killed")
    (tmp_path / "x.db-old").write_text("moved there by its owner")
    environment["MLFLOW_TRACKING_URI"] = "sqlite:///x.db"  # relative to the main repository
    processes = []
    for index in range(4):
        workspace = tmp_path / f".dvc/tmp/exps/tmp{index}"
        workspace.mkdir(parents=True)
        command = [sys.executable, "-c", ONE_RUN, str(index)]
        processes.append(
            subprocess.Popen(
                command, cwd=workspace, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    assert [process.communicate(timeout=60)[0] for process in processes] == [""] * 4

    store = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'x.db'}")
    (experiment,) = store.search_experiments(filter_string="name = 'flowers-ddpm'")
    found = store.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["pipeline.key"] for run in found) == ["0", "1", "2", "3"]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert experiment.artifact_location == (tmp_path / "mlartifacts").as_uri()
    assert not list(tmp_path.rglob("*.init*")) and not (tmp_path / "x.db-journal").exists()
    assert (tmp_path / "x.db-old").read_text() == "moved there by its owner"
    assert not list(tmp_path.rglob("mlruns"))


@pytest.mark.parametrize("module", ["ddpm", "ddpm.tracking", "ddpm.runtime.lineage"])
def test_importing_the_package_is_cheap(module: str, environment: dict[str, str]) -> None:
    code = f"import {module}, sys; print([name for name in ('mlflow', 'matplotlib', 'torch') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
