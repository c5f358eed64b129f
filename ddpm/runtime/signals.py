"""Signals that ask a process to end: in a training between two steps, elsewhere at once."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

# The same request may come twice: to a whole process group, and from a DVC that has died of it.
ECHO = 1.0  # seconds
IMPORT_PAUSE = 0.05  # seconds
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class _Request:
    number = 0  # of the signal; 0 for none
    since = 0.0
    may_wait = False
    put_off = 0  # number of a signal that waits for the end of an import


_request = _Request()


def listen() -> None:
    """From now on, SIGTERM, SIGHUP and Ctrl-C end this process with 128 + n, with a one-line message if it has one."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _take)


@contextmanager
def patience() -> Iterator[None]:
    """Let the block end by itself when `asked`; a second request, a second later, still ends it at once."""
    _request.may_wait = True
    try:
        yield
    finally:
        _request.may_wait = False
    if _request.number:  # too late for the block to see it
        sys.exit(128 + _request.number)


def asked() -> int:
    """Number of the signal that asks this process to end; 0 for none."""
    return _request.number


def settle() -> None:
    """End now if that was put off: the imports are over, and the timer would outlive this program."""
    if _request.put_off:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        sys.exit(128 + _request.put_off)


def end(number: int, where: str = "") -> NoReturn:
    """End with the exit code of a signal, by which a batch system or a person knows to run the command again.

    Args:
        number: of the signal, which may have been another process's.
        where: what is kept, such as "the checkpoint after step 12 is kept"; without it, nothing is printed.
    """
    _request.number = number  # the launcher will ask this process as well, which is an echo
    if where:
        _report(f"{signal.Signals(number).name}: {where}; run the same command again to go on")
    sys.exit(128 + number)


def _take(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _request.number and ("RANK" in os.environ or now < _request.since + ECHO):
        return  # torchrun repeats it, and ends at once with all its processes when it is asked twice itself
    if _imports(frame):
        _request.put_off = number
        signal.signal(signal.SIGALRM, lambda _, later: _take(_request.put_off, later))
        signal.setitimer(signal.ITIMER_REAL, IMPORT_PAUSE)
        return
    _request.put_off = 0
    is_first, _request.number, _request.since = not _request.number, number, now
    if not (is_first and _request.may_wait):
        sys.exit(128 + number)
    if os.environ.get("RANK", "0") == "0":
        _report("Finishing this step and keeping a checkpoint; ask again to end at once.")


def _imports(frame: FrameType | None) -> bool:
    """Return whether a module is being imported, of which nothing good comes when it is broken off.

    Python 3.11 turns the end into an error where a class is just being made, libraries swallow it, and an extension
    module in C++ aborts the process.
    """
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _report(sentence: str) -> None:
    """Tell on stderr, also from within a handler, which may have interrupted a print.

    The terminal may be closed, or the program that reads a pipe have died of the same Ctrl-C: then all that is printed
    from now on goes nowhere, because each line would be an error in the middle of the work.
    """
    try:
        os.write(2, f"{sentence}\n".encode())
    except OSError:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(nowhere, stream)


def end_with_parent() -> None:
    """Have the system end this stage with its parent: DVC or torchrun, killed, leave it behind, working for nobody.

    The parent must be DVC itself, not its shell, which would live on: hence the `exec` in dvc.yaml.
    """
    launched = "RANK" in os.environ  # by torchrun
    if (launched or os.environ.get("DVC_STAGE")) and sys.platform == "linux":
        # A process that waits for another one's part of the work takes notice of nothing milder.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL if launched else signal.SIGTERM)
