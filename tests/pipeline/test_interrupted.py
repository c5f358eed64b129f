"""Stages that are ended, and go on; and several processes at one stage: the outputs stay the same."""

import shutil
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
import yaml

from tests.support.tiny_repository import (
    RESTLESS,
    call,
    digests,
    environment,
    runs,
    wait_for,
)


@pytest.fixture
def longer(reproduced):
    """Enough work to be interrupted, with all the tricks of the training."""
    params = reproduced / "params.yaml"
    before = params.read_text()
    longer = before.replace("epochs: 2", "epochs: 16").replace("preview_every: 1", "preview_every: 8")
    longer = longer.replace("augment: 0.0", "augment: 0.3").replace("min_snr: 0.0", "min_snr: 5.0")
    params.write_text(longer.replace("n: 8", "n: 160"))
    yield reproduced
    params.write_text(before)


@pytest.mark.parametrize("stage", ["train", "sample"])
def test_a_stage_that_was_ended_goes_on_and_ends_with_the_same_bytes(longer, stage):
    call(longer, "python", "-m", f"stages.{stage}")
    straight = digests(longer, stage)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        shutil.rmtree(longer / ".ckpt")
        for out in ("models", "reports/curves") if stage == "train" else ("data/samples", "reports/samples"):
            shutil.rmtree(longer / out)  # as DVC does before it runs a stage
        process = subprocess.Popen(
            [sys.executable, "-c", RESTLESS, stage], cwd=longer, env=environment(), stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda p=process: list((longer / ".ckpt").glob("*/state.pt")) or p.poll() is not None)
        process.send_signal(number)
        complaint = process.communicate(timeout=60)[1]
        assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), number.name
        assert "Traceback" not in complaint, number.name

        output = call(longer, "python", "-m", f"stages.{stage}")
        assert "Going on from the checkpoint after" in output, number.name
        assert digests(longer, stage) == straight, number.name


def test_two_processes_generate_the_same_bytes_as_one(longer):
    call(longer, "python", "-m", "stages.sample")
    straight = digests(longer, "sample")
    for folder in (".ckpt", "data/samples", "reports/samples"):
        shutil.rmtree(longer / folder)
    done = subprocess.run(
        [sys.executable, "-m", "stages.sample"],
        cwd=longer,
        env=environment() | {"DDPM_PROCESSES": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name[33:] for path in (longer / ".ckpt").iterdir()) == ["0-of-2-by-8", "1-of-2-by-8"]
    assert digests(longer, "sample") == straight


def test_one_process_takes_over_the_training_of_two(longer):
    """Which is how a training on several machines becomes a result of `dvc repro`: both do the same work."""
    earlier = len(runs(longer))
    for folder in (".ckpt", "models", "reports/curves"):
        shutil.rmtree(longer / folder, ignore_errors=True)
    command, settings = [sys.executable, "-m", "stages.train"], environment() | {"DDPM_PROCESSES": "2"}
    done = subprocess.run(command, cwd=longer, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("steps on 2 x CPU") == 1  # the first process speaks for both
    shared = digests(longer, "train")
    for folder in ("models", "reports/curves"):
        shutil.rmtree(longer / folder)
    assert "Going on from the checkpoint after step" in call(longer, *command)
    assert digests(longer, "train") == shared and len(list((longer / ".ckpt").iterdir())) == 1
    assert len(runs(longer)) == earlier + 1 and runs(longer)[-1].info.status == "FINISHED"


def test_sampling_goes_on_with_smaller_batches(longer):
    """Which is what the sentence for a GPU without enough memory advises."""
    for folder in (".ckpt", "data/samples", "reports/samples"):
        shutil.rmtree(longer / folder, ignore_errors=True)
    process = subprocess.Popen([sys.executable, "-c", RESTLESS, "sample"], cwd=longer, env=environment())
    wait_for(lambda: list((longer / ".ckpt").glob("*/state.pt")) or process.poll() is not None)
    process.kill()
    process.wait()
    params = longer / "params.yaml"
    before = params.read_text()
    config = yaml.safe_load(before)
    config["sample"]["batch_size"] = 5
    params.write_text(yaml.safe_dump(config, sort_keys=False))
    call(longer, "python", "-m", "stages.sample")
    params.write_text(before)
    images = np.load(longer / "data/samples/samples.npy")
    assert len(images) == len(np.unique(images, axis=0)) == 160


@pytest.mark.parametrize("count", ["0", "two", "-1"])
def test_a_wrong_number_of_processes_is_one_sentence(reproduced, count):
    command = [sys.executable, "-m", "stages.sample"]
    settings = environment() | {"DDPM_PROCESSES": count}
    done = subprocess.run(command, cwd=reproduced, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: DDPM_PROCESSES: found '{count}', expected a number of processes, 1 or more\n"


def test_a_stage_ends_when_its_dvc_was_killed(reproduced):
    """Otherwise it would go on unseen, and a second `dvc repro` would train beside it."""
    params = reproduced / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("epochs: 2", "epochs: 100000"))
    shutil.rmtree(reproduced / ".ckpt")
    plain_shell = environment() | {"SHELL": "/bin/sh"}  # unlike bash, dash stays between DVC and the stage
    dvc = subprocess.Popen(["dvc", "repro", "train"], cwd=reproduced, env=plain_shell, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: list((reproduced / ".ckpt").glob("*/lock")))
        (stage,) = [child for child in psutil.Process(dvc.pid).children() if "stages.train" in child.cmdline()]
        dvc.kill()
        try:
            stage.wait(timeout=30)
        except psutil.TimeoutExpired:
            stage.kill()
            raise
    finally:
        dvc.kill()
        dvc.wait()
        params.write_text(before)
        call(reproduced, "dvc", "checkout", "--force")  # what DVC had cleared away for the training
