"""What the doctor prints: predictions for all stages, and what does not fit, with its remedy."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from ddpm.commands import estimate
from ddpm.commands.estimate import (
    Cost,
)
from ddpm.training.loop import Training


@pytest.fixture
def doctor(tiny, tmp_path, monkeypatch, command):
    """Run the command in an empty workspace with these parameters; returns its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()

    def doctor(**groups):
        for name, values in groups.items():
            tiny[name] = tiny[name] | values
        Path("params.yaml").write_text(yaml.safe_dump(tiny))
        return command("doctor")

    return doctor


def test_the_doctor_predicts_all_stages_without_any_data(doctor, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "CHUNK_SECONDS", 0.3)
    monkeypatch.setattr(estimate, "FEATURES", 200)
    code, printed = doctor()
    assert code == 0, printed
    assert re.search(r"OK +packages +PyTorch", printed)
    assert re.search(r"later +images +2,000 expected; `dvc repro preprocess` makes data/processed", printed)
    assert re.search(r"later +MLflow +`dvc repro` makes .*mlflow.db", printed)
    assert re.search(r"train +memory +[\d.]+ GB: weights and optimizer", printed)
    assert re.search(r"speed +[\d.e+]+ images/s", printed)
    assert re.search(r"time +.* for 700 epochs, 39,375 steps", printed)  # 1,800 images, 32 at a time
    assert re.search(r"sample +time +.* for 16 images in 20 steps", printed)
    assert re.search(r"fid +time +\d+.* with efficientnet_lite0 features", printed)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".dvc", "params.yaml"]  # it writes nothing


def test_a_training_that_does_not_fit_into_the_memory_is_a_problem(doctor, monkeypatch):
    monkeypatch.setattr("ddpm.commands.estimate.training_cost", lambda *_: Cost(1.0, 1e15, 32))
    monkeypatch.setattr("ddpm.commands.estimate.sampling_seconds", lambda *_: 1.0)
    monkeypatch.setattr("ddpm.commands.estimate.scoring_seconds", lambda *_: 1.0)
    code, printed = doctor()
    assert code == 1 and "raise train.accumulate, or lower model.channels" in printed
    assert printed.endswith("error: 1 problem, see above\n")


def test_images_that_stream_from_the_disk_are_no_memory(doctor, quick, monkeypatch):
    monkeypatch.setattr("ddpm.training.batches.free_memory", lambda device: 1000)
    code, printed = doctor()
    assert code == 0 and re.search(r"images 0 GB, rest [\d.]+ GB; the images stream from the disk\n", printed)


def out_of_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory")


def out_of_memory_in_a_library(*_):
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize(
    ("accumulate", "fitting", "fault", "remedy"),
    [
        (1, 10, out_of_memory, "8 fits; set it to that, or train.accumulate to 4"),
        (4, 20, out_of_memory_in_a_library, "16 fits; set it to that, or train.accumulate to 8"),
        (1, 0, out_of_memory_in_a_library, "not even 1 image fits; lower model.channels"),
    ],
)
def test_a_batch_that_does_not_fit_into_the_gpu_is_a_problem_with_a_number_as_remedy(
    doctor, monkeypatch, accumulate, fitting, fault, remedy
):
    """As on a GPU that a batch of more than `fitting` images fills, whichever step measures it."""
    take = Training.train_step

    def step(self, number):
        return take(self, number) if self.config.batch_size <= fitting else fault()

    monkeypatch.setattr(Training, "train_step", step)
    code, printed = doctor(train={"accumulate": accumulate})
    assert code == 1 and f"train.batch_size: 32 images do not fit into the memory; {remedy}\n" in printed


@pytest.fixture
def quick(monkeypatch):
    """A doctor who knows what a step costs."""
    monkeypatch.setattr("ddpm.commands.estimate.training_cost", lambda *_: Cost(1.0, 1e9, 32))
    monkeypatch.setattr("ddpm.commands.estimate.scoring_seconds", lambda *_: 1.0)


@pytest.mark.parametrize(("step_seconds", "named"), [(2.1, False), (2.3, True)])  # 39,375 steps: 23 hours, 25 hours
def test_a_training_of_days_has_a_shorter_recipe_named_beside_it(
    step_seconds, named, doctor, quick, tmp_path, monkeypatch
):
    monkeypatch.setattr("ddpm.commands.estimate.training_cost", lambda *_: Cost(step_seconds, 1e9, 32))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/cpu-1h.yaml").write_text("epochs: 1\n")
    code, printed = doctor()
    assert code == 0 and ("recipe           shorter: `python -m ddpm use cpu-1h`\n" in printed) is named, printed


def test_what_fits_is_looked_for_as_it_will_be_trained_compiled(doctor, monkeypatch):
    """Which takes less memory: without, the batch would be advised that fits a training that is not compiled."""
    built, compiled, take = [], [], Training.train_step
    monkeypatch.setattr("ddpm.training.step.compiles", lambda choice, *_: built.append(choice) or True)
    monkeypatch.setattr(torch, "compile", lambda network, **_: compiled.append(network) or network)
    monkeypatch.setattr(
        Training, "train_step", lambda self, n: take(self, n) if self.config.batch_size < 16 else out_of_memory()
    )
    code, printed = doctor(train={"compile": True})
    assert code == 1 and "8 fits" in printed
    assert built == [True] * len(compiled) and len(compiled) >= 3


@pytest.mark.parametrize(
    ("batch_size", "fitting", "said"),
    [
        (16, 2, "sample.batch_size: 16 images do not fit into the memory; 2 fits; set it to that, or to auto"),
        (16, 0, "sample.batch_size: 16 images do not fit into the memory; not even 1 image fits; lower model.channels"),
        ("auto", 2, None),  # as the stage itself, it goes on with what fits
        ("auto", 0, "sample.batch_size: 16 images do not fit into the memory; not even 1 image fits; lower model"),
    ],
)
def test_samples_that_do_not_fit_into_the_gpu_are_a_problem_unless_the_batch_is_auto(
    doctor, quick, monkeypatch, batch_size, fitting, said
):
    tried = []

    def seconds(model, config, seed, size):
        tried.append(size)
        return 1.0 if size <= fitting else out_of_memory()

    monkeypatch.setattr("ddpm.commands.estimate.sampling_seconds", seconds)
    code, printed = doctor(sample={"batch_size": batch_size})
    assert tried[0] == 16 and (said or "for 16 images in 20 steps") in printed
    assert code == (1 if said else 0)


def test_features_that_do_not_fit_into_the_gpu_are_a_problem(doctor, quick, monkeypatch):
    monkeypatch.setattr("ddpm.commands.estimate.sampling_seconds", lambda *_: 1.0)
    monkeypatch.setattr("ddpm.commands.estimate.scoring_seconds", out_of_memory_in_a_library)
    code, printed = doctor()
    assert code == 1 and "do not fit into the memory; lower fid.batch_size (100), or sample.n (16)" in printed


def test_a_wrong_parameter_is_told_before_any_work(doctor):
    code, printed = doctor(train={"batch_size": 0})
    assert code == 2 and printed.startswith("error: params.yaml: train.batch_size: found 0")
