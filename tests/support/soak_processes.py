"""What works below a folder: its processes, their memory, and the files that are there."""

from pathlib import Path

import psutil


def processes_below(root: Path) -> list[psutil.Process]:
    """All processes whose working directory is in the repository or in its temporary workspaces."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(root):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def command_of(process: psutil.Process) -> str:
    """Its command line; empty for one that has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def rss(process: psutil.Process) -> float:
    """Resident memory, MB."""
    try:
        return float(process.memory_info().rss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def files(*folders: Path) -> int:
    """How many files there are below the folders."""
    return sum(path.is_file() for folder in folders for path in folder.rglob("*"))
