"""Stages on real small disks, each mounted for one process alone: they say so, and go on when there is room."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_repository import call, digests, environment, make_repository

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0,
        reason="mounting a small disk needs user namespaces, which this system does not allow",
    ),
]
OUTS = {"train": ["models", "reports/curves"], "sample": ["data/samples", "reports/samples"]}

# Everything is on the small disk, also checkpoints and the tracking store; argv: repository, free kilobytes, stage.
ALL_ON_ONE_DISK = """
import os, shutil, subprocess, sys
repository, free, stage = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.mkdir("small")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", "small"], check=True)
shutil.copytree(repository, "small/repository")
with open("small/filler", "wb") as filler:
    disk = os.statvfs("small")
    filler.write(bytes(disk.f_bavail * disk.f_bsize - 1024 * free))
os.chdir("small/repository")
command = [sys.executable, "-m", f"stages.{stage}"]
print("first:", subprocess.run(command).returncode, flush=True)
os.unlink("../filler")
print("second:", subprocess.run(command).returncode, flush=True)
shutil.copytree(".", "../../after")
"""


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository after `sample`, without an open store, which must not be copied."""
    root = make_repository(
        tmp_path_factory.mktemp("full") / "repository", restless=True, sample={"n": 40}, tracking={"preview_every": 0}
    )
    call(root, "dvc", "repro", "sample")
    return root


@pytest.fixture
def before(sampled: Path, tmp_path: Path) -> Callable[[str], tuple[Path, dict[str, str]]]:
    """Makes a repository as DVC leaves it before it runs a stage; with the checksums that the outputs shall have."""

    def before(stage: str) -> tuple[Path, dict[str, str]]:
        root = tmp_path / "repository"
        shutil.copytree(sampled, root)
        shutil.rmtree(root / ".ckpt")
        for out in OUTS[stage]:
            shutil.rmtree(root / out)
        return root, digests(sampled, stage)

    return before


def run_apart(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a mount namespace of its own, whose mounts end with it."""
    return subprocess.run(
        ["unshare", "-rm", *command], cwd=root, env=environment(), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("stage", "out"), [(stage, out) for stage, outs in OUTS.items() for out in outs])
def test_no_room_for_an_output(before, stage, out):
    root, straight = before(stage)
    (root / out).mkdir(parents=True)
    script = f"mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs {out} && exec {sys.executable} -m stages.{stage}"
    done = run_apart(root, "sh", "-c", script)
    assert done.returncode == 1
    assert "error: the disk is full" in done.stderr and "free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Going on from the checkpoint" in call(root, "python", "-m", f"stages.{stage}")
    assert digests(root, stage) == straight


def test_no_room_in_the_cache_of_dvc(before):
    """DVC stores the outputs when the training has ended, and its checkpoint must have outlived it."""
    root, _ = before("train")
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("seed: 0", "seed: 1"))
    script = "mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs .dvc/cache/files && exec dvc repro --single-item train"
    done = run_apart(root, "sh", "-c", script)
    assert "No space left on device" in done.stderr
    for out in OUTS["train"]:
        shutil.rmtree(root / out, ignore_errors=True)  # as where this was a temporary workspace
    output = call(root, "dvc", "repro", "--single-item", "train")
    assert "Going on from the checkpoint after step 6" in output


@pytest.mark.parametrize(
    ("stage", "free"), [("train", 0), ("train", 40), ("train", 160), ("train", 600), ("sample", 0), ("sample", 40)]
)
def test_the_only_disk_is_full_at_some_moment(before, stage, free):
    root, straight = before(stage)
    done = run_apart(root.parent, sys.executable, "-c", ALL_ON_ONE_DISK, str(root), str(free), stage)
    assert "second: 0" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    if free == 0 or "first: 0" not in done.stdout:
        assert "first: 1" in done.stdout and "error: the disk is full" in done.stderr
    assert digests(root.parent / "after", stage) == straight
