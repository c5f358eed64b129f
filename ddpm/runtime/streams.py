"""Standard output and error that may end early, know no letters but ASCII, or be closed from the start."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

GONE = (errno.EPIPE, errno.EIO)  # the reader of a pipe has ended; a terminal was closed


class _Pipe(io.FileIO):
    """A file descriptor that loses its reader once, and from then on leads nowhere."""

    def __init__(self, number: int, gone: Callable[[], object]) -> None:
        super().__init__(number, "wb", closefd=False)
        self._gone = gone

    def write(self, data: Any) -> int:
        """Write bytes, or, when nobody reads them any more, do what was asked for that case."""
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in GONE:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            self._gone()
            return len(data)


def withstand(gone: Callable[[], object]) -> None:
    """Let prints never fail; letters that a terminal does not know are printed as their numbers.

    Args:
        gone: called once per stream, when nobody reads it any more (`| head`).
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:  # closed (`>&-`), so that the next file would get its number
        pass
    os.close(number)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):  # somebody else's, or done already
            continue
        encoding, lines = "ascii", False
        if stream:
            with suppress(OSError):
                stream.flush()
            encoding, lines = stream.encoding, stream.line_buffering or stream.write_through  # python -u
        raw = io.BufferedWriter(_Pipe(number, gone))
        setattr(sys, name, io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=lines))


def end_quietly() -> NoReturn:
    """End as a program does that writes into a closed pipe, without a word."""
    sys.exit(128 + signal.SIGPIPE)
