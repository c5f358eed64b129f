"""Measurements, `python -m benchmarks.ROOM.NAME`; what both rooms share lies here.

speed: train, sampling, patches: how fast, as ratios of contenders that take turns in one run; sharing: beside other
work; doctor: how right `python -m ddpm doctor` is.
quality: recipe, peers, levers: how good for so many minutes of training; reference_curves: keeps a training's curve.
gpu: on a machine with a GPU, in one command, all that no other machine can show.
docs/architecture.md says what each of them does.
"""

import json
import multiprocessing
import os
import platform
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ddpm.runtime.errors import InputError  # before torch: importing ddpm sets how torch's threads wait
from ddpm.runtime.lineage import revision
from ddpm.runtime.stage_files import write_whole

import torch  # isort: skip

RESULTS = Path("reports/benchmarks")
T = TypeVar("T")


def machine(device: torch.device) -> dict[str, object]:
    """Describe where something was measured, and with which versions."""
    commit, modified = revision("benchmarks")
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit,  # "" where there is no git, as on a machine to which the files were copied
        "modified": modified,  # None where that is not known
    }


def whereabouts(about: dict[str, Any]) -> str:
    """What `machine` found, in words."""
    changes = {True: " with changes", None: " with unknown changes", False: ""}[about.get("modified", False)]
    commit = f"commit `{about['commit'][:7]}`{changes}" if about["commit"] else "no commit"
    threads = f"{about['threads']} thread{'s' * (about['threads'] != 1)}"
    return f"{about['device']}, {threads}, PyTorch {about['torch']}, {commit}"


def spread(values: list[float]) -> dict[str, float]:
    """Least, median and greatest of repeated measurements."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def in_words(values: dict[str, float], form: str) -> str:
    """What `spread` returned, as a cell of a table, Markdown."""
    return f"{values['min']:{form}} – **{values['median']:{form}}** – {values['max']:{form}}"


def alone(action: Callable[..., T], *given: Any) -> T:
    """Call in a fresh process, whose peak of memory is of this call alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(action, *given).result()


def read(path: Path, command: str) -> dict[str, Any]:
    """Read one result.

    Raises:
        InputError: there is none; the command makes it.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file; `{command}` makes it")
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, content: dict[str, Any]) -> None:
    """Write one result."""
    write_whole(path, json.dumps(content, indent=2) + "\n")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
