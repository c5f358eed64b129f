"""Which process wrote to a run, so that another one can find out whether it is still there."""

import os
import socket
import uuid
from pathlib import Path


def new_attempt() -> str:
    """Name what this process begins: host, boot and process namespace, number, its start, and a mark of its own."""
    return " ".join([socket.gethostname(), _world(), str(os.getpid()), _start_time(os.getpid()), uuid.uuid4().hex])


def is_gone(attempt: str) -> bool:
    """Return whether the process of an attempt has ended; of another boot or namespace, nothing is known."""
    *_, world, number, started, _ = ["", "", "", "", *attempt.split()]
    return world == _world() and world != "-" and _start_time(int(number)) != started


def _world() -> str:
    """The boot of this machine and the process namespace in it: only there does a process number mean something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink().name}"
    except OSError:  # no Linux
        return "-"


def _start_time(number: int) -> str:
    """Clock ticks from the boot to the start of a process; "-" if there is none of this number."""
    try:
        # The name, in parentheses, may hold anything; the start is field 22, the 20th after the name.
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "-"
