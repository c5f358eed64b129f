"""Trainings that were killed, and what a failing store missed of them: every attempt becomes part of one run."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ddpm import tracking
from ddpm.config import Config
from tests.support import ROOT
from tests.support.tracked import NOWHERE, TRAIN, client, runs, score, train, unsent_folders


def test_an_attempt_that_was_killed_and_one_that_went_on_become_one_run(repository, tracked, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    with pytest.raises(SystemExit), tracking.training_run(tracked, TRAIN) as tracker:
        for step in (1, 2, 3):
            tracker.metrics({"loss": 1 / step}, step=step)
        raise SystemExit(143)
    with tracking.training_run(tracked, TRAIN, resumed=True) as tracker:  # from a checkpoint after step 1
        for step in (2, 3, 4):
            tracker.metrics({"loss": 1 / step}, step=step)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.sync() == 1
    (run,) = runs(repository, tracked)
    assert run.info.status == "FINISHED"
    assert [point.step for point in client(repository).get_metric_history(run.info.run_id, "loss")] == [1, 2, 3, 4]


def test_an_attempt_that_is_sent_when_the_next_one_has_finished_ends_it_no_more(repository, tracked, monkeypatch):
    """Another process was just at its folder when the next attempt began."""
    with pytest.raises(SystemExit), tracking.training_run(tracked, TRAIN) as tracker:
        tracker.metrics({"loss": 1.0}, step=1)
        monkeypatch.setattr(tracking.store.Store, "send", refuse := lambda *_: 1 / 0)
        tracker.metrics({"loss": 0.5}, step=2)
        raise SystemExit(143)
    assert tracking.store.Store.send is refuse
    monkeypatch.undo()
    monkeypatch.chdir(repository)
    (folder,) = unsent_folders(repository)
    with (folder / "log.jsonl").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with tracking.training_run(tracked, TRAIN, resumed=True) as tracker:
            tracker.metrics({"loss": 0.25}, step=3)
    assert tracking.sync() == 1
    (run,) = runs(repository, tracked)
    assert run.info.status == "FINISHED"
    points = client(repository).get_metric_history(run.info.run_id, "loss")
    assert {point.step: point.value for point in points} == {1: 1.0, 2: 0.5, 3: 0.25}


ENDLESS = f"""
import sys, time
from ddpm import tracking
from ddpm.config import load_config
config = load_config({str(ROOT / "params.yaml")!r})
config = config.model_copy(update={{"tracking": config.tracking.model_copy(update={{"experiment": sys.argv[1]}})}})
with tracking.training_run(config, "b" * 64) as run:
    run.metrics({{"loss": 1.0}}, step=1)
    print("running", flush=True)
    time.sleep(600)
"""


@contextmanager
def endless_training(repository: Path, config: Config, **environment: str) -> Iterator[subprocess.Popen]:
    """A process in the middle of a training."""
    command = [sys.executable, "-c", ENDLESS, config.tracking.experiment]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with subprocess.Popen(command, cwd=repository, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "running\n"
            yield process
        finally:
            process.kill()


def test_a_killed_run_does_not_go_on_running(repository, tracked):
    with endless_training(repository, tracked) as process:
        train(tracked)
        status = {run.data.tags["pipeline.key"]: run.info.status for run in runs(repository, tracked)}
        assert status == {"b" * 64: "RUNNING", TRAIN: "FINISHED"}
        process.kill()
        process.wait()
        score(tracked, fid=10.0)
    assert sorted(run.info.status for run in runs(repository, tracked)) == ["FINISHED", "KILLED"]


def test_the_entries_of_a_killed_process_are_sent_when_it_is_gone(repository, tracked, capfd):
    with endless_training(repository, tracked, MLFLOW_TRACKING_URI=NOWHERE) as process:
        assert tracking.sync() == 0
        process.send_signal(signal.SIGKILL)
        process.wait()
    (folder,) = unsent_folders(repository)
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"metrics": {"loss": 0.')  # a kill in the middle of a line
    assert tracking.sync() == 1
    (run,) = runs(repository, tracked)
    assert (run.info.status, run.data.metrics) == ("KILLED", {"loss": 1.0})
