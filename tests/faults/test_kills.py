"""Trainings, and the DVC above them, that are killed in every way and run again."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.tiny_repository import call, digests, environment, make_repository, runs, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # a training begins twenty times

KILLS = 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a training that leaves a checkpoint after every step, and has ended once without a kill."""
    root = make_repository(tmp_path_factory.mktemp("kills") / "repository", restless=True, epochs=12)
    call(root, "dvc", "repro", "train")
    return root


@pytest.fixture(scope="module")
def straight(root: Path) -> bytes:
    """The lock file of the training that was not killed: the checksums of its outputs."""
    return (root / "dvc.lock").read_bytes()


def checkpoint_time(root: Path) -> float:
    """When the newest checkpoint was written; 0 before the first."""
    return max((file.stat().st_mtime for file in (root / ".ckpt").glob("*/state.pt")), default=0.0)


def forget(root: Path) -> None:
    """Have DVC begin anew instead of taking the result from its cache."""
    outputs = ("data/raw/fetched", "data/weights/fetched", "data/processed", "models", "reports/curves")
    for folder in (".ckpt", ".dvc/cache", *outputs):
        shutil.rmtree(root / folder, ignore_errors=True)
    (root / "dvc.lock").unlink(missing_ok=True)


def start(root: Path, *command: str) -> subprocess.Popen:
    """Start a command in a process group of its own, and wait until its training has left a checkpoint."""
    process = subprocess.Popen(
        command,
        cwd=root,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    wait_for(lambda: checkpoint_time(root) or process.poll() is not None)
    assert process.poll() is None, "the training must be long enough to be killed"
    return process


def trainings(root: Path) -> list[psutil.Process]:
    """Processes that train in this repository or in one of its temporary workspaces."""
    found = []
    for process in psutil.process_iter():
        try:
            if "stages.train" in process.cmdline() and Path(process.cwd()).is_relative_to(root):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def lock_of(root: Path, experiment: str) -> bytes:
    refs = call(root, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    (ref,) = [ref for ref in refs if ref.endswith(f"/{experiment}")]
    return call(root, "git", "show", f"{ref}:dvc.lock").encode()


def test_a_training_killed_twenty_times_ends_with_the_same_bytes_in_one_run(tmp_path):
    root = make_repository(tmp_path / "repository", restless=True, epochs=60)
    call(root, "dvc", "repro", "train")
    straight = digests(root, "train")
    shutil.rmtree(root / ".ckpt", ignore_errors=True)

    delay = random.Random(0)
    for _ in range(KILLS):
        before = checkpoint_time(root)
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.train"], cwd=root, env=environment(), stderr=subprocess.DEVNULL
        )
        wait_for(lambda then=before, p=process: checkpoint_time(root) > then or p.poll() is not None)
        try:
            process.wait(timeout=delay.uniform(0, 0.3))  # a point anywhere in a step, or in the writing of a checkpoint
        except subprocess.TimeoutExpired:
            process.kill()
        assert process.wait() == -9, "the training must be long enough for all kills"

    assert "Going on from the checkpoint" in call(root, "python", "-m", "stages.train")
    assert digests(root, "train") == straight
    first, second = runs(root)  # the one that was never killed, and the one that was
    assert second.info.status == "FINISHED"
    assert second.data.metrics["train/loss"] == first.data.metrics["train/loss"]


def kill_dvc(process: subprocess.Popen) -> None:
    process.kill()


def kill_group(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def terminate_group(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGTERM)


def interrupt_group(process: subprocess.Popen) -> None:
    """Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)


def test_dvc_repro_killed_in_any_way_goes_on_when_it_is_run_again(root, straight):
    before = len(runs(root))
    ways = [kill_dvc, kill_group, terminate_group, interrupt_group]
    for kill in ways:
        forget(root)
        process = start(root, "dvc", "repro", "train")
        kill(process)
        assert process.wait(timeout=60) != 0, kill.__name__
        wait_for(lambda: not trainings(root))
        assert "Going on from the checkpoint" in call(root, "dvc", "repro", "train"), kill.__name__
        assert (root / "dvc.lock").read_bytes() == straight, kill.__name__
    assert [run.info.status for run in runs(root)[before:]] == ["FINISHED"] * len(ways)


def test_an_experiment_in_a_temporary_workspace_goes_on_when_it_is_run_again(root, straight):
    forget(root)
    process = start(root, "dvc", "exp", "run", "--temp", "train")
    kill_group(process)
    process.wait()
    output = call(root, "dvc", "exp", "run", "--temp", "--name", "again", "train")
    assert "Going on from the checkpoint" in output
    assert lock_of(root, "again") == straight


def test_a_queued_experiment_goes_on_when_it_is_queued_again(root, straight):
    forget(root)

    def start() -> None:
        # Not `call`: the worker keeps the pipes of its parent, so that reading them to the end would wait for it.
        subprocess.run(["dvc", "queue", "start"], cwd=root, env=environment(), check=True, stdout=subprocess.DEVNULL)

    def run_queue(name: str) -> None:
        call(root, "dvc", "exp", "run", "--queue", "--name", name, "train")
        start()

    def succeeded() -> bool:
        status = call(root, "dvc", "queue", "status")
        # DVC starts no worker beside one that is about to end without another look into the queue.
        if "Queued" in status and "0 active, 0 idle" in status:
            start()
        return "Success" in status

    run_queue("first")
    wait_for(lambda: checkpoint_time(root))
    (training,) = trainings(root)
    training.kill()
    wait_for(lambda: "Failed" in call(root, "dvc", "queue", "status"), pause=1)
    run_queue("second")
    wait_for(succeeded, seconds=180, pause=1)
    assert "Going on from the checkpoint" in call(root, "dvc", "queue", "logs", "second")
    assert lock_of(root, "second") == straight


def test_a_second_dvc_repro_at_the_same_time_says_who_is_at_work_and_the_first_goes_on(root, straight):
    forget(root)
    first = start(root, "dvc", "repro", "train")
    (training,) = trainings(root)
    training.suspend()  # or it might be done before the second has begun
    output = call(root, "dvc", "repro", "train", check=False)
    assert "is busy, it is being blocked by" in output and f"(PID {first.pid})" in output
    assert "Running stage" not in output
    training.resume()
    assert first.wait(timeout=120) == 0
    assert (root / "dvc.lock").read_bytes() == straight
