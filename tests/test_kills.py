"""One training that is killed again and again."""

import random
import shutil
import subprocess
import sys

import pytest
from tiny_repository import RESTLESS, call, digests, environment, make_repository, runs, wait_for

pytestmark = pytest.mark.slow

KILLS = 20


def test_a_training_killed_twenty_times_ends_with_the_same_bytes_in_one_run(tmp_path):
    root = make_repository(tmp_path / "repository")
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 2", "epochs: 60"))
    call(root, "dvc", "repro", "train")
    straight = digests(root, "train")
    shutil.rmtree(root / "models")
    shutil.rmtree(root / "reports/curves")

    delay = random.Random(0)
    for _ in range(KILLS):
        before = checkpoint_time(root)
        process = subprocess.Popen(
            [sys.executable, "-c", RESTLESS, "train"], cwd=root, env=environment(), stderr=subprocess.DEVNULL
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
    assert second.data.metrics["loss"] == first.data.metrics["loss"]


def checkpoint_time(root) -> float:
    """When the newest checkpoint was written; 0 before the first."""
    return max((file.stat().st_mtime for file in (root / ".ckpt").glob("*/state.pt")), default=0.0)
