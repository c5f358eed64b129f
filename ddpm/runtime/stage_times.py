"""How long each stage took: kept apart from its outputs, which hold no times, for the MLflow run."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ddpm.runtime.errors import InputError
from ddpm.runtime.lineage import stage_key, stage_names
from ddpm.runtime.paths import main_root
from ddpm.runtime.stage_files import write_whole

BEAT = 60  # seconds between two notes of work that is going on, the most that a kill -9 can hide


@contextmanager
def timed(stage: str, params: dict[str, Any]) -> Iterator[None]:
    """Note the seconds that the block takes, on top of those of earlier attempts at the same work.

    Work that was done before, and is only taken over from its checkpoint, keeps its time.

    Raises:
        InputError: see `lineage.stage_key`.
    """
    file = _file(stage, params)
    earlier = _read(file) or {"seconds": 0.0, "finished": False}
    started, finished, over = time.monotonic(), False, threading.Event()

    def note() -> None:
        seconds = time.monotonic() - started
        known = max(seconds, earlier["seconds"]) if earlier["finished"] else earlier["seconds"] + seconds
        with suppress(OSError):  # a full disk must not turn a stage that has succeeded into one that failed
            write_whole(file, json.dumps({"seconds": round(known, 2), "finished": finished or earlier["finished"]}))

    def keep_noting() -> None:
        while not over.wait(BEAT):
            note()

    clock = threading.Thread(target=keep_noting, daemon=True)
    clock.start()
    try:
        yield
        finished = True
    finally:
        over.set()
        clock.join()
        note()


def stage_times(params: dict[str, Any]) -> dict[str, float]:
    """Seconds of each stage of the pipeline that made what is in this workspace, where they are known."""
    times = {}
    for stage in stage_names():
        try:
            note = _read(_file(stage, params))
        except InputError:  # its inputs were not pulled from the remote
            continue
        if note and note["finished"]:
            times[stage] = note["seconds"]
    return times


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):  # none yet, or not readable, or empty because a disk was full
        return None


def _file(stage: str, params: dict[str, Any]) -> Path:
    return main_root() / ".stage-times" / f"{stage}-{stage_key(stage, params)[:32]}.json"
