"""Locks on files, by which processes wait for each other; a lock ends with its process, however that ends."""

import errno
import fcntl
import sys
from typing import IO, Any

WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # NFS without lockd, Lustre without -o flock, some of FUSE

_warned: list[str] = []


def lock(file: IO[Any], wait: bool = True) -> bool:
    """Keep an open file for this process alone, until the file is closed.

    Where the file system has no locks, the file counts as locked; a warning is printed, once.

    Args:
        file: opened in any mode.
        wait: for another process that holds it.

    Returns:
        Whether it is locked, which it always is after waiting.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT:
            raise
        _warn(f"{file.name}: its file system has no locks ({error.strerror})")
    return True


def _warn(fault: str) -> None:
    if not _warned:
        _warned.append(fault)
        print(
            f"warning: {fault}; start one process at a time here, or have it mounted with them (-o flock)",
            file=sys.stderr,
        )
