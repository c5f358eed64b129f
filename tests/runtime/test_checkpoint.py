import errno
import os
import shutil
import subprocess
import sys

import pytest
import torch

from ddpm.runtime import checkpoint
from ddpm.runtime.checkpoint import Checkpoint, checkpoint_for, discard
from ddpm.runtime.errors import InputError
from tests.support import ROOT

STATE = {"steps": 3, "history": [{"loss": 0.1}], "weights": torch.arange(5.0)}


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_state_survives_as_it_was(tmp_path):
    Checkpoint(tmp_path).save(STATE)
    loaded = Checkpoint(tmp_path).load()
    assert loaded["history"] == STATE["history"] and torch.equal(loaded["weights"], STATE["weights"])
    assert [path.name for path in tmp_path.glob("state*")] == ["state.pt"]


def test_it_stays_until_it_is_discarded(repository):
    with pytest.raises(KeyboardInterrupt), checkpoint_for("a" * 64) as kept:
        kept.save(STATE)
        raise KeyboardInterrupt
    with checkpoint_for("b" * 64) as other:
        assert other.load() is None  # another key
    for _ in range(2):  # also after an end without an error, which DVC may yet fail to store
        with checkpoint_for("a" * 64) as again:
            assert again.load()["steps"] == 3
    for key in ("a" * 64, "b" * 64, "c" * 64):
        discard(key)
    assert list((repository / ".ckpt").iterdir()) == []


def test_it_is_not_discarded_while_somebody_works_on_it(repository):
    with checkpoint_for("a" * 64) as kept:
        kept.save(STATE)
        discard("a" * 64)
        assert kept.load()["steps"] == 3


def test_it_lies_in_the_main_repository(repository, monkeypatch):
    workspace = repository / ".dvc/tmp/exps/tmp1"
    workspace.mkdir(parents=True)
    monkeypatch.chdir(workspace)
    with checkpoint_for("a" * 64) as here:
        assert here.folder.parent == repository / ".ckpt"


@pytest.mark.parametrize("discarded", [False, True])
def test_a_second_process_at_the_same_work_waits_for_the_first(repository, discarded):
    code = (
        "from ddpm.runtime.checkpoint import checkpoint_for\nwith checkpoint_for('a' * 64) as kept: print(kept.load())"
    )
    with checkpoint_for("a" * 64) as kept:
        other = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "Another process is at the same work; waiting" in other.stderr.readline()
        assert other.poll() is None
        kept.save({"steps": 3})
        if discarded:
            shutil.rmtree(kept.folder)
    output, error = other.communicate(timeout=60)
    assert (output, error) == ("None\n" if discarded else "{'steps': 3}\n", "")
    assert (repository / ".ckpt" / ("a" * 32) / "lock").exists()  # where a third one looks


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half", b"<html>"])
def test_a_damaged_file_is_told_in_a_sentence(tmp_path, damage):
    (tmp_path / "state.pt").write_bytes(damage)
    with pytest.raises(InputError, match=r"cannot be read .* delete .* to start afresh"):
        Checkpoint(tmp_path).load()


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"steps": Evil()}, tmp_path / "state.pt")
    with pytest.raises(InputError):
        Checkpoint(tmp_path).load()
    assert not (tmp_path / "evil").exists()


def test_a_full_disk_costs_a_warning_and_keeps_the_state_before(tmp_path, monkeypatch, capsys):
    kept = Checkpoint(tmp_path)
    kept.save(STATE)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    kept.save({"steps": 4})
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    assert Checkpoint(tmp_path).load()["steps"] == 3
    assert not list(tmp_path.glob("*.tmp"))


def test_it_is_due_after_a_minute_and_costs_one_percent_at_most(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    kept = Checkpoint(tmp_path)
    assert not kept.due()
    now = 60.0
    assert kept.due()

    def slow(*_):
        nonlocal now
        now += 5

    monkeypatch.setattr(torch, "save", slow)
    kept.save({})  # takes 5 seconds, so the next may come after 500
    now += 499
    assert not kept.due()
    now += 1
    assert kept.due()


@pytest.mark.parametrize("where", [0.3, 0.5, 0.7])
def test_a_single_bit_that_is_wrong_is_found(tmp_path, where):
    """PyTorch would load the weights as they are."""
    Checkpoint(tmp_path).save({"weights": torch.arange(5000.0)})
    content = bytearray((tmp_path / "state.pt").read_bytes())
    content[int(where * len(content))] ^= 1
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"state\.pt: this checkpoint cannot be read"):
        Checkpoint(tmp_path).load()


def test_the_state_of_other_work_is_not_taken_for_its_own(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    Checkpoint(tmp_path / "one").save(STATE)
    shutil.copy(tmp_path / "one/state.pt", tmp_path / "other")
    with pytest.raises(InputError, match="it belongs to other work"):
        Checkpoint(tmp_path / "other").load()
