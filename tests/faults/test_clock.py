"""A clock that is set back in mid-work, by hand, by a time server, or with a virtual machine."""

import ast
import time

import pytest

from ddpm.runtime import checkpoint
from ddpm.runtime.checkpoint import Checkpoint
from ddpm.runtime.stage_times import stage_times, timed
from ddpm.tracking import runs as tracking
from tests.support import ROOT
from tests.support.tracked import TRAIN, client, runs


@pytest.fixture
def set_back(monkeypatch):
    """Sets the clock back by a day."""
    now = time.time
    return lambda: monkeypatch.setattr(time, "time", lambda: now() - 86400)


def test_nothing_but_the_times_in_mlflow_comes_from_a_clock_that_can_be_set():
    """All else counts with time.monotonic or time.perf_counter, or looks at no time at all."""
    found = set()
    for path in [*(ROOT / "ddpm").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if name in ("time.time", "datetime.now", "datetime.datetime.now") or name.endswith(
                (".st_mtime", ".utcnow")
            ):
                found.add((path.relative_to(ROOT).as_posix(), name))
    assert found == {("ddpm/tracking/runs.py", "time.time")}


def test_a_run_neither_ends_before_it_began_nor_has_points_that_go_back(repository, tracked, set_back):
    with tracking.training_run(tracked, TRAIN) as tracker:
        for step in range(1, 5):
            tracker.metrics({"loss": 1 / step}, step=step)
            if step == 2:
                set_back()
    (run,) = runs(repository, tracked)
    points = client(repository).get_metric_history(run.info.run_id, "loss")
    times = [point.timestamp for point in sorted(points, key=lambda point: point.step)]
    assert times == sorted(times) and run.info.start_time <= times[0]
    assert times[-1] <= run.info.end_time < run.info.start_time + 600_000
    assert run.data.metrics["loss"] == 0.25


def test_checkpoints_come_when_they_are_due(tmp_path, monkeypatch, set_back):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.05)
    kept = Checkpoint(tmp_path)
    set_back()
    time.sleep(0.06)
    assert kept.due()


def test_a_stage_has_taken_as_long_as_it_has(tmp_path, monkeypatch, set_back):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {train: {cmd: train}}")
    monkeypatch.chdir(tmp_path)
    with timed("train", {}):
        time.sleep(0.1)
        set_back()
    assert 0.1 <= stage_times({})["train"] < 60
