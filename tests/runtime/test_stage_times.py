"""How long a stage took: all of its attempts, and not the moment in which a rerun takes the result over."""

import json
import time

import pytest

from ddpm.runtime import stage_times
from ddpm.runtime.stage_times import timed


@pytest.fixture
def note(tmp_path, monkeypatch):
    """Reads the note of the one stage."""
    file = tmp_path / "times" / "note.json"
    monkeypatch.setattr(stage_times, "_file", lambda *_: file)
    return lambda: json.loads(file.read_text())


def attempt(seconds, fails=False):
    try:
        with timed("train", {}):
            time.sleep(seconds)
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass


def test_attempts_at_the_same_work_add_up(note):
    attempt(0.05, fails=True)
    assert not note()["finished"]
    attempt(0.05)
    assert note()["finished"] and note()["seconds"] >= 0.1


def test_a_rerun_that_only_takes_the_result_over_keeps_the_time(note):
    attempt(0.2)
    attempt(0)
    assert note()["finished"] and note()["seconds"] >= 0.2


def test_a_rerun_that_fails_leaves_the_time_of_the_finished_work(note):
    attempt(0.2)
    attempt(0, fails=True)
    assert note()["finished"] and note()["seconds"] >= 0.2
