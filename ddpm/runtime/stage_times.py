"""How long each stage took: kept apart from its outputs, which hold no times, for the MLflow run."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ddpm.runtime.errors import InputError
from ddpm.runtime.lineage import stage_key, stage_names
from ddpm.runtime.paths import main_root


@contextmanager
def timed(stage: str, params: dict[str, Any]) -> Iterator[None]:
    """Note the seconds that the block takes, on top of those of earlier attempts at the same work.

    An attempt that was ended by kill -9 has noted none. Work that was done before, and is only taken over from its
    checkpoint, keeps its time.

    Raises:
        InputError: see `lineage.stage_key`.
    """
    file = _file(stage, params)
    earlier = _read(file)
    seconds = earlier["seconds"] if earlier and not earlier["finished"] else 0.0
    started, finished = time.monotonic(), False
    try:
        yield
        finished = True
    finally:
        seconds += time.monotonic() - started
        if earlier and earlier["finished"]:
            seconds, finished = max(seconds, earlier["seconds"]), True
        note = {"seconds": round(seconds, 2), "finished": finished}
        with suppress(OSError):  # a full disk must not turn a stage that has succeeded into one that failed
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(note))


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
