"""A training that is shared by several processes, as torchrun starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ddpm.runtime.distributed import HERE
from tests.support import ROOT

TWO = (*HERE, "--nproc-per-node", "2")


def start(*torchrun: str, folder: Path, **scene: object) -> subprocess.Popen:
    environment = os.environ | {
        "SCENE": json.dumps({"folder": str(folder), **scene}),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "ddpm.runtime.distributed", *torchrun, "-m", "tests.support.shared_training"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def share(folder: Path, patience: float = 120, **scene: object) -> tuple[int, str]:
    """Train in two processes; returns the exit code and what was said on stderr."""
    process = start(*TWO, folder=folder, **scene)
    try:
        complaint = process.communicate(timeout=patience)[1]
    except subprocess.TimeoutExpired:
        process.kill()  # and its processes end with it
        raise
    return process.returncode, complaint
