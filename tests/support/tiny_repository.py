"""A copy of this repository with tiny parameters, and what is needed to work in it as a user does."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.support import ROOT

SERVER: dict[str, str] = {}  # environment of the test's own tracking server, if it has one

# Keeps a checkpoint after every step or batch instead of every minute.
RESTLESS = """
import runpy, sys, time
from ddpm.runtime import checkpoint
from ddpm.runtime import signals
checkpoint.SECONDS = checkpoint.SHARE = 0
save, number = checkpoint.Checkpoint.save, 0
def save_and_wait(self, state):
    global number
    number += 1
    save(self, state)
    while number == 3 and not signals.asked():
        time.sleep(0.01)
checkpoint.Checkpoint.save = save_and_wait
runpy.run_module(f"stages.{sys.argv[1]}", run_name="__main__")
"""

TINY = {
    "schedule": "linear",
    "epochs": 2,
    "device": "cpu",
    "data": {"source": "synthetic", "image_size": 16, "synthetic": {"count": 24, "classes": 3, "seed": 0}},
    "model": {"channels": 8, "channel_mults": [1, 2], "blocks": 1, "attention": [8], "head_channels": 8},
    "train": {"batch_size": 8, "log_every": 2, "warmup_steps": 1},
    "sample": {"n": 8, "steps": 3, "batch_size": 8},
    "fid": {"extractor": "efficientnet_lite0", "batch_size": 8},
    "tracking": {"preview_every": 1},
}


def merge(base: dict, changes: dict) -> dict:
    return base | {key: merge(base[key], value) if isinstance(value, dict) else value for key, value in changes.items()}


def environment() -> dict[str, str]:
    """This environment with this Python first on the path, and nothing of an outer DVC or MLflow."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_"))}
    return (
        kept
        | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        | SERVER
    )


def wait_for(condition: Callable[[], object], seconds: float = 60, pause: float = 0.02) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)


def call(root: Path, *command: str, check: bool = True) -> str:
    """Run a command in the repository and return all that it printed."""
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def runs(root: Path) -> list[Run]:
    """All MLflow runs of the repository's store, oldest first."""
    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("flowers-ddpm")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def make_repository(root: Path, restless: bool = False, **params: object) -> Path:
    """Make a repository whose only commit is this working tree with the tiny parameters, and some others.

    A restless one keeps a checkpoint after every step or batch instead of every minute.
    """
    listed = call(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes((ROOT / name).read_bytes())
    (root / "dvc.lock").unlink(missing_ok=True)
    if restless:
        checkpoint = root / "ddpm/runtime/checkpoint.py"
        checkpoint.write_text(
            checkpoint.read_text().replace("SECONDS = 60.0", "SECONDS = 0").replace("SHARE = 100", "SHARE = 0")
        )
    params = merge(merge(yaml.safe_load((ROOT / "params.yaml").read_text()), TINY), params)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    call(root, "git", "init", "-q")
    call(root, "git", "add", "-A")
    call(root, "git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "tiny")
    return root


def digests(root: Path, stage: str) -> dict[str, str]:
    """Checksums of the stage's outputs, by file."""
    outs = yaml.safe_load((root / "dvc.yaml").read_text())["stages"][stage]["outs"]
    files = [file for out in outs for file in (root / out, *(root / out).rglob("*")) if file.is_file()]
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
