"""How long a stage took: all of its attempts, and not the moment in which a rerun takes the result over."""

import json
import subprocess
import sys
import time

import pytest

from ddpm.runtime import stage_times
from ddpm.runtime.stage_times import timed
from tests.support import ROOT


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


WORK = """
import sys, time
from pathlib import Path
from ddpm.runtime import stage_times
stage_times.BEAT, stage_times._file = 0.05, lambda *_: Path(sys.argv[1])
with stage_times.timed("train", {}):
    time.sleep(600)
"""


def test_an_attempt_that_was_killed_counts_up_to_its_last_note(note, tmp_path):
    file = tmp_path / "times" / "note.json"
    child = subprocess.Popen([sys.executable, "-c", WORK, file], cwd=ROOT)
    while not file.exists() or note()["seconds"] < 0.3:
        time.sleep(0.01)
    child.kill()
    child.wait()
    noted = note()
    assert not noted["finished"]
    attempt(0)
    assert note()["finished"] and note()["seconds"] >= noted["seconds"]
