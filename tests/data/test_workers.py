"""The worker processes of preprocessing: how they end, and where the system has none to give."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from ddpm.data.preprocess import pack
from ddpm.data.sources.synthetic import Synthetic
from ddpm.runtime.errors import RunError

SEMAPHORE, FORK = "multiprocessing.synchronize.SemLock.__init__", "multiprocessing.popen_fork.Popen._launch"


@pytest.mark.parametrize(
    ("step", "fault", "message"),
    [
        (SEMAPHORE, errno.EROFS, r"\(Read-only file system\); they need a /dev/shm that can be written"),
        (SEMAPHORE, errno.ENOSPC, r"\(No space left on device\); they need a /dev/shm"),
        (SEMAPHORE, errno.ENOENT, r"\(No such file or directory\); they need a /dev/shm"),
        (FORK, errno.EAGAIN, r"\(Resource temporarily unavailable\); raise the limit"),
        (FORK, errno.ENOMEM, r"\(Cannot allocate memory\); raise the limit"),
    ],
)
def test_a_system_that_allows_no_more_processes_is_one_sentence(monkeypatch, step, fault, message):
    """In a container without /dev/shm, or at the limit of a shared machine; the system's own words name no place."""

    def refuse(*_, **__):
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(step, refuse)
    with pytest.raises(RunError, match=f"^preprocess: no worker processes can be started {message}"):
        pack(Synthetic(None, 9, 2, 0), 8, workers=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_end_the_workers_without_a_traceback(number, tmp_path):
    code = """
import os, signal, sys, time
from ddpm.data.preprocess import pack
from ddpm.data.sources.synthetic import Synthetic

class Slow(Synthetic):
    def open(self, item):
        os.write(1, f"{os.getpid()}\\n".encode())
        time.sleep(0.2)
        return super().open(item)

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
try:
    pack(Slow(None, 10_000, 2, 0), 8, workers=2)
except KeyboardInterrupt:
    sys.exit(130)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    busy = set()
    while len(busy) < 2:
        busy.add(int(process.stdout.readline()))
    os.killpg(process.pid, number)
    # Ends only when the workers have closed the pipes too; all of the work would take them a quarter of an hour.
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in errors
    assert "Process" not in errors
