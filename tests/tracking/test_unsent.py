"""Stores that fail in every way: it costs seconds and a warning, and what they missed is sent later."""

import errno
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from ddpm.config import Config, load_config
from ddpm.runtime.errors import InputError, RunError
from ddpm.tracking import recorder, store, unsent
from ddpm.tracking import runs as tracking
from tests.support import ROOT
from tests.support.tracked import NOWHERE, TRAIN, client, runs, score, train, unsent_folders

STEPS = 20


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture
def record(tracked: Config, picture: np.ndarray, tmp_path: Path):
    """Track all kinds of things, then change the files, as the next experiment would."""

    def record() -> None:
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model/weights.bin").write_bytes(b"this model")
        (tmp_path / "fid.md").write_text("this report")
        with tracking.training_run(tracked, TRAIN) as tracker:
            tracker.tags({"device": "CPU"})
            for step in range(1, STEPS + 1):
                tracker.metrics({"loss": 1 / step, "lr": 0.1}, step=step)
            tracker.image("samples", picture, step=STEPS)
            tracker.artifacts(tmp_path / "model", "model")
            tracker.artifacts(tmp_path / "fid.md")
        (tmp_path / "model/weights.bin").write_bytes(b"the next model")
        (tmp_path / "fid.md").write_text("the next report")

    return record


def check_complete(root: Path, config: Config) -> None:
    """The one run has all that `record` tracked."""
    (run,) = runs(root, config)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("linear · 700 epochs")
    assert run.data.params["train.lr"] == "0.0002"
    assert run.data.tags["device"] == "CPU" and run.data.tags["pipeline.key"] == TRAIN
    for name, value in (("loss", lambda step: 1 / step), ("lr", lambda step: 0.1)):
        curve = client(root).get_metric_history(run.info.run_id, name)
        assert [(point.step, point.value) for point in curve] == [(step, value(step)) for step in range(1, STEPS + 1)]
        assert all(run.info.start_time <= point.timestamp <= run.info.end_time for point in curve)
    folder = root / "mlartifacts" / run.info.run_id / "artifacts"
    assert (folder / "model/weights.bin").read_bytes() == b"this model"
    assert (folder / "fid.md").read_text() == "this report"
    assert len(list(folder.glob("images/samples+step+*.png"))) == 1
    assert unsent_folders(root) == []


@contextmanager
def seconds_and_one_warning(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 15
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == captured.err.count("warning: MLflow failed") == 1
    assert "python -m ddpm sync" in captured.err


@contextmanager
def impatience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A second for all calls together, instead of ten."""
    assert recorder.PATIENCE <= 10
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "PATIENCE", 1.0)
        yield


def test_what_a_refusing_server_missed_is_sent_later(repository, tracked, record, capfd, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    with seconds_and_one_warning(capfd):
        record()
    with pytest.raises(RunError, match="it is kept"):
        tracking.sync()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    ended = time.time() * 1000
    assert tracking.sync() == 1
    check_complete(repository, tracked)
    assert runs(repository, tracked)[0].info.end_time <= ended  # when it ended, not when it was sent
    assert tracking.sync() == 0


def test_what_a_silent_server_missed_is_sent_later(repository, tracked, record, capfd, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, and never answers
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        with impatience(monkeypatch), seconds_and_one_warning(capfd):
            record()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.sync() == 1
    check_complete(repository, tracked)


def test_what_a_locked_database_missed_is_sent_later(repository, tracked, record, capfd, monkeypatch):
    train(tracked.model_copy(update={"tracking": tracked.tracking.model_copy(update={"experiment": "before"})}))
    with closing(sqlite3.connect(repository / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with impatience(monkeypatch), seconds_and_one_warning(capfd):
            record()
        other.execute("ROLLBACK")
    assert tracking.sync() == 1
    check_complete(repository, tracked)


@pytest.mark.parametrize("calls", [1, 2, 10, 21, 22, 23, 24, 25])
def test_what_a_store_that_dies_in_mid_run_missed_is_sent_later(repository, tracked, record, capfd, monkeypatch, calls):
    """After the given number of entries; the last one still arrives, but its answer does not."""
    send, sent = store.Store.send, []

    def dying(store, claim, entry):
        if len(sent) < calls:
            send(store, claim, entry)
        sent.append(entry)
        if len(sent) >= calls:
            raise ConnectionError("gone")

    with monkeypatch.context() as patch, seconds_and_one_warning(capfd):
        patch.setattr(store.Store, "send", dying)
        record()
    assert len(sent) == calls
    assert len(unsent_folders(repository)) == 1
    assert tracking.sync() == 1
    check_complete(repository, tracked)


def test_the_next_stage_sends_it(repository, tracked, record, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    record()
    score(tracked, fid=10.0)
    assert len(unsent_folders(repository)) == 2
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    score(tracked, fid=9.0)
    check_complete(repository, tracked)
    (run,) = runs(repository, tracked)
    assert [point.value for point in client(repository).get_metric_history(run.info.run_id, "fid")] == [10.0, 9.0]


@pytest.mark.parametrize("log", ["", "{}\n", '{"work": {"stage": "train"}, "claim": null}\n', "half of a lin"])
def test_a_damaged_folder_is_named_and_stops_nobody(repository, tracked, record, capfd, monkeypatch, log):
    damaged = repository / ".unsent/1-1"
    damaged.mkdir(parents=True)
    (damaged / "log.jsonl").write_text(log)
    train(tracked)
    assert f"{damaged}: what MLflow missed cannot be read" in capfd.readouterr().err
    assert runs(repository, tracked)[0].info.status == "FINISHED"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    record()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(InputError, match="delete this folder"):
        tracking.sync()
    assert unsent_folders(repository) == [damaged]
    assert len(runs(repository, tracked)) == 2


def test_the_run_that_cannot_be_sent_is_named(repository, tracked, record, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    record()
    record()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    _, second = sorted(unsent_folders(repository))
    deliver = tracking.deliver

    def once(folder, patience):
        if folder == second:
            raise ConnectionError("gone")
        return deliver(folder, patience)

    monkeypatch.setattr(tracking, "deliver", once)
    with pytest.raises(RunError, match=f"MLflow cannot take {second} yet"):
        tracking.sync()
    assert unsent_folders(repository) == [second]


def test_a_disk_without_room_for_the_first_line_leaves_no_folder(repository, tracked, record, monkeypatch, capfd):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    monkeypatch.setattr(unsent.Unsent, "_write", full)
    record()
    assert "cannot be kept either" in capfd.readouterr().err
    assert unsent_folders(repository) == []


def test_the_command_says_what_it_sent(repository, tracked, record, monkeypatch):
    def sync() -> tuple[int, str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "ddpm", "sync"]
        done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    record()
    code, output = sync()
    assert code == 1 and "error: MLflow cannot take" in output and "Traceback" not in output
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync() == (0, "Sent 1 run.\n")
    assert sync() == (0, "Nothing was left to send.\n")
    check_complete(repository, tracked)


FULL_DISK = f"""
import subprocess
from pathlib import Path
from tests.support.tracked import TRAIN
from ddpm.tracking import runs as tracking
from ddpm.config import load_config

config = load_config({str(ROOT / "params.yaml")!r})
Path("model.bin").write_bytes(bytes(1_000_000))
with tracking.training_run(config, TRAIN) as tracker:
    tracker.metrics({{"loss": 1.0}}, step=1)
    Path("mlartifacts").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "mlartifacts"], check=True)
    tracker.artifacts(Path("model.bin"))
    tracker.metrics({{"loss": 0.5}}, step=2)
subprocess.run(["umount", "mlartifacts"], check=True)
"""


def test_artifacts_for_which_there_was_no_room_are_sent_later(tmp_path, monkeypatch):
    """On a real small disk, mounted for one process alone."""
    if subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("mounting a small disk needs user namespaces, which this system does not allow")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", FULL_DISK],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.count("\n") == done.stderr.count("No space left on device") == 1
    monkeypatch.chdir(tmp_path)
    config = load_config(ROOT / "params.yaml")
    (run,) = runs(tmp_path, config)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 0.5})
    assert tracking.sync() == 1
    assert (tmp_path / "mlartifacts" / run.info.run_id / "artifacts/model.bin").stat().st_size == 1_000_000
    assert len(runs(tmp_path, config)) == 1 and unsent_folders(tmp_path) == []
