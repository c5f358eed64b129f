"""Stages on real small disks, or read-only ones, each mounted for one process alone.

They say so, and go on when there is room, or leave to write.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tiny_repository import call, digests, environment, make_repository

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

# Each stage, the last first, on a disk that has no room, and on one with room for half of its outputs; then DVC, with
# room but without its cache. Prints what became of each, and whether all outputs are as before. argv: repository.
EVERY_STAGE = """
import hashlib, importlib, json, os, pathlib, shutil, subprocess, sys
import yaml
os.mkdir("small")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", "small"], check=True)
shutil.copytree(sys.argv[1], "small/repository")
outside = os.getcwd()
os.chdir("small/repository")
import stages
entries = yaml.safe_load(open("dvc.yaml"))["stages"]
mains = {stage: importlib.import_module(f"stages.{stage}").main for stage in entries}

def outputs(stage):
    declared = [*entries[stage]["outs"], *entries[stage].get("metrics", [])]
    outs = [pathlib.Path(out if isinstance(out, str) else next(iter(out))) for out in declared]
    return [file for out in outs for file in (out, *out.rglob("*")) if file.is_file()]

def contents():
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for stage in entries for file in outputs(stage)}

def fill(free):
    disk = os.statvfs(".")
    with open("../filler", "wb") as filler:
        filler.write(bytes(disk.f_bavail * disk.f_bsize - free))

def run(stage, free):
    for file in outputs(stage):
        file.unlink()
    shutil.rmtree(".ckpt", ignore_errors=True)
    fill(free)
    if not (child := os.fork()):
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{outside}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        stages.run(mains[stage])
        sys.stdout.flush()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.unlink("../filler")
    return {"code": code, "said": open(f"{outside}/stderr").read()}

said, before = {}, contents()
for stage in reversed(entries):
    size = sum(file.stat().st_size for file in outputs(stage))
    said[stage] = [run(stage, free) for free in (0, size // 2)]
shutil.rmtree(".dvc/cache")
shutil.rmtree(".ckpt", ignore_errors=True)
done = subprocess.run(["dvc", "repro"], capture_output=True, text=True)
said["dvc"] = {"code": done.returncode, "said": done.stderr, "same": contents() == before}
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository after the whole pipeline, without an open store, which must not be copied."""
    root = make_repository(
        tmp_path_factory.mktemp("full") / "repository", restless=True, sample={"n": 40}, tracking={"preview_every": 0}
    )
    call(root, "dvc", "repro")
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
    assert "error: the disk of " in done.stderr and "free some space" in done.stderr
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
        assert "first: 1" in done.stdout and "error: the disk of " in done.stderr
    assert digests(root.parent / "after", stage) == straight


@pytest.fixture(scope="module")
def on_full_disks(sampled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each stage said, without MLflow, which the tests above have; and then DVC."""
    place = tmp_path_factory.mktemp("every")
    root = shutil.copytree(sampled, place / "repository")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["tracking"]["enabled"] = False
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    done = run_apart(place, sys.executable, "-c", EVERY_STAGE, str(root))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "stage", ["download", "preprocess", "explore", "reference", "train", "sample", "fid", "report"]
)
def test_a_stage_without_room_for_its_outputs_or_for_half_of_them_names_the_disk(on_full_disks, stage):
    for end in on_full_disks[stage]:
        assert end["code"] == 1, end["said"]
        sentence = end["said"].splitlines()[-1]
        assert sentence.startswith("error: the disk of /") and "/small/repository" in sentence
        assert sentence.endswith("free some space and run the same command again")
        assert "Traceback" not in end["said"] and end["said"].count("error: ") == 1


def test_with_room_dvc_repro_ends_with_the_same_bytes_whatever_was_left_half_written(on_full_disks):
    assert on_full_disks["dvc"]["code"] == 0, on_full_disks["dvc"]["said"]
    assert on_full_disks["dvc"]["same"]


def read_only(root: Path, places: list[str], command: str) -> subprocess.CompletedProcess[str]:
    """Run a command that may read these places and not write there, which holds for root too."""
    mounts = [f"mount --bind {place} {place} && mount -o remount,ro,bind {place}" for place in places]
    return run_apart(root, "sh", "-c", " && ".join([*mounts, f"exec {command}"]))


@pytest.mark.parametrize(("place", "again"), [(".ckpt", "6 steps on CPU"), ("models", "Going on from the checkpoint")])
def test_a_training_without_leave_to_write_names_the_path(before, place, again):
    root, straight = before("train")
    (root / place).mkdir()
    done = read_only(root, [place], f"{sys.executable} -m stages.train")
    assert done.returncode == 1
    (sentence,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert f"{place}/" in sentence
    assert sentence.endswith(": Read-only file system; make this path writable and run the same command again")
    assert again in call(root, "python", "-m", "stages.train")
    assert digests(root, "train") == straight


def test_a_training_that_may_only_write_its_outputs_warns_and_ends_with_the_same_bytes(before):
    """Neither MLflow's database, nor what is kept for it, nor the note of its time costs the experiment."""
    root, straight = before("train")
    (root / ".unsent").mkdir()
    places = ["mlflow.db", ".unsent", ".stage-times"]
    done = read_only(root, places, f"{sys.executable} -m stages.train")
    assert done.returncode == 0, done.stderr
    assert "warning: what MLflow misses cannot be kept either" in done.stderr and "Traceback" not in done.stderr
    assert digests(root, "train") == straight


def test_a_read_only_cache_of_dvc_costs_no_training(before):
    root, _ = before("train")
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("seed: 0", "seed: 2"))
    done = read_only(root, [".dvc/cache"], "dvc repro --single-item train")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "failed to reproduce 'train': [Errno 30] Read-only file system" in done.stderr
    assert "Going on from the checkpoint after step 6" in call(root, "dvc", "repro", "--single-item", "train")
