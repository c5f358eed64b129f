"""Locks, and file systems that have none: NFS without lockd, Lustre without -o flock."""

import errno
import fcntl
import os

import pytest

from ddpm.runtime import locks
from ddpm.runtime.checkpoint import checkpoint_for, discard
from ddpm.tracking import unsent
from ddpm.tracking.database import locked
from ddpm.tracking.store import Work

WORK = Work("train", "a" * 64, False, ("one", "two"), {}, {}, {}, 0, "attempt", "experiment")


@pytest.fixture
def fault(monkeypatch, tmp_path):
    """A repository on a file system where flock fails; returns a function that says how."""
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locks, "_warned", [])

    def fail(number: int) -> None:
        def flock(file, operation):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return fail


def test_a_file_is_for_one_process_until_it_is_closed(tmp_path):
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        assert locks.lock(first) and not locks.lock(second, wait=False)
        first.close()
        assert locks.lock(second, wait=False)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_everything_goes_on_with_one_warning(number, fault, tmp_path, capsys):
    fault(number)
    with checkpoint_for("a" * 64) as kept:
        kept.save({"step": 1})
    with checkpoint_for("a" * 64) as again:
        assert again.load() == {"step": 1}
    discard("a" * 64)
    assert list((tmp_path / ".ckpt").iterdir()) == []
    with locked(tmp_path / "mlflow.db"):
        pass
    folder = unsent.Unsent(WORK, None)
    folder.add({"tags": {"device": "cpu"}})
    folder.close()
    with unsent.opened(folder.folder) as content:
        assert content[2] == [{"tags": {"device": "cpu"}}]
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    assert f".ckpt/{'a' * 32}/lock: its file system has no locks ({os.strerror(number)})" in warnings[0]


def test_any_other_fault_of_a_lock_is_one(fault, tmp_path):
    fault(errno.EIO)
    with (tmp_path / "lock").open("w") as file, pytest.raises(OSError, match="Input/output"):
        locks.lock(file)
