"""How a command may end badly: in one sentence and with an exit code, not in a traceback."""

import errno
import math
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ddpm.runtime.streams import end_quietly, withstand

NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
Result = TypeVar("Result")
MAKE_ROOM = "end other programs that use it, or, on a GPU, set device to cpu"  # where no parameter is left to lower


class InputError(Exception):
    """What the user gave (a parameter, a file, a missing download) cannot be used; exit code 2."""


class RunError(Exception):
    """The work itself failed half-way (a diverged training, say); exit code 1."""


def is_disk_full(error: BaseException) -> bool:
    """Tell a lack of space, or of quota, from other faults."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def memory_for(work: str, remedy: str) -> Iterator[None]:
    """Report which parameter to lower, and how far, if the memory does not suffice for the block.

    Args:
        work: what is done in the block, such as "sample.batch_size: 500 images at a time".
        remedy: such as "set it to 250".

    Raises:
        RunError: it does not, be it of the GPU or of the machine.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(f"{work} does not fit into the memory ({_reason(error)}); {remedy}") from None


def unless_too_large(action: Callable[[], Result]) -> Result | None:
    """Do something; returns its result, or None if the memory does not suffice, be it of the GPU or of the machine.

    Nothing of what has filled the memory is left, to which the exception would hold on.
    """
    try:
        return action()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def guarded(action: Callable[[], object]) -> None:
    """Do something; turn each foreseeable fault into a sentence on stderr.

    Exit codes: 0 done, 1 the work failed, 2 wrong input, 130 ended by Ctrl-C, 141 nobody reads the output any more.
    """
    withstand(end_quietly)
    try:
        _report_faults(action)
        sys.stdout.flush()
    except SystemExit as ended:
        if "RANK" in os.environ and isinstance(ended.code, int):
            # Threads that wait for the other processes would abort this one, in C++, while the interpreter ends.
            with suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(ended.code)
        raise


def _report_faults(action: Callable[[], object]) -> None:
    try:
        action()
    except InputError as error:
        sys.exit(_complain(error, 2))
    except RunError as error:
        sys.exit(_complain(error, 1))
    except FileNotFoundError as error:
        sys.exit(_complain(f"{error.filename}: no such file; `dvc repro` runs the stages in order and makes it", 2))
    except OSError as error:
        if is_disk_full(error):
            place = error.filename or _full_disk()
            sys.exit(_complain(f"the disk of {place} is full; free some space and run the same command again", 1))
        if error.filename is None:
            raise
        advice = "make this path writable" if error.errno in NOT_ALLOWED else "check this path"
        sys.exit(_complain(f"{error.filename}: {error.strerror}; {advice} and run the same command again", 1))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        advice = "lower batch_size (in params.yaml, or --batch-size), or model.channels, or end other programs"
        sys.exit(_complain(f"{_reason(error)}; {advice}", 1))
    except KeyboardInterrupt:
        # DVC would record a partial output as the result of a stage that exits with 0.
        sys.exit(128 + signal.SIGINT)


def _full_disk() -> str:
    """A place on the disk that is full, which the system does not name: outputs may be links to other disks."""

    def free(folder: Path) -> float:
        try:
            return shutil.disk_usage(folder).free
        except OSError:  # it may not be looked at
            return math.inf

    folders = [Path.cwd(), *Path.cwd().glob("*/"), *Path.cwd().glob("*/*/"), Path(tempfile.gettempdir())]
    return str(min(folders, key=free))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory does not suffice, be it of the GPU or of the machine."""
    # In words, because PyTorch has a type for one of many such errors alone, and half of the commands do without it.
    words = ("out of memory", "allocate memory", "ALLOC_FAILED")
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(word in str(error) for word in words)


def first_line(error: BaseException) -> str:
    """What another library says of a fault, without what follows; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _reason(error: BaseException) -> str:
    # PyTorch goes on with a page of figures, and for a CPU begins with the place in its source; Python's own says
    # nothing. NumPy writes 3. GiB.
    sentences = re.split(r"\. (?![KMGTPE]iB)", str(error))
    return next((sentence for sentence in sentences if "memory" in sentence), sentences[0]) or "out of memory"


def _complain(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
