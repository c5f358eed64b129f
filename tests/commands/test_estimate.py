"""What the doctor predicts, against closed forms and against a training that really runs."""

import json
import re
import sqlite3
import time
from pathlib import Path

import pytest
import torch
import yaml

from ddpm.commands import checks, estimate
from ddpm.commands.estimate import (
    Cost,
    largest_batch,
    random_images,
    sampling_seconds,
    step_seconds,
    training_cost,
)
from ddpm.config import parse_config
from ddpm.data.sources.flowers102 import ARCHIVE
from ddpm.model.trained import DiffusionModel
from ddpm.network.unet import count_parameters
from ddpm.runtime.distributed import ALONE
from ddpm.runtime.forecast import forecast
from ddpm.runtime.progress import duration
from ddpm.training.loop import Training
from ddpm.training.step import STATE_BYTES
from stages.train import describe_model, needs, prepare

CPU = torch.device("cpu")


@pytest.fixture
def tiny(params, tiny_model):
    """Parameters of a tiny network."""
    params["model"] = tiny_model.model_dump()
    params["data"] |= {"image_size": 16, "source": "synthetic"}
    params["train"] |= {"batch_size": 32}
    params["sample"] |= {"n": 16, "steps": 20, "batch_size": 4}
    params["fid"] |= {"extractor": "efficientnet_lite0"}
    return params | {"device": "cpu"}


def test_a_training_holds_five_numbers_of_four_bytes_per_parameter(tiny):
    config = parse_config(tiny)
    training = prepare(config, random_images(config, 64), CPU)
    training.train_step(0)
    parameters = list(training.unet.parameters())
    moments = [training.optimisation.optimizer.state[p][name] for p in parameters for name in ("exp_avg", "exp_avg_sq")]
    held = [*parameters, *(p.grad for p in parameters), *moments, *training.ema.model.parameters()]
    assert sum(t.numel() * t.element_size() for t in held) == STATE_BYTES * count_parameters(training.unet)


def count_processor_time(monkeypatch):
    """Instead of time, which other work on the machine makes longer; here one thread does everything."""
    monkeypatch.setattr("ddpm.commands.estimate.time.perf_counter", time.process_time)


def test_the_predicted_speed_is_that_of_a_training_within_a_fifth(tiny, monkeypatch):
    count_processor_time(monkeypatch)
    monkeypatch.setattr(estimate, "CHUNK_SECONDS", 0.3)
    config = parse_config(tiny)

    def build(size):
        train = config.train.model_copy(update={"batch_size": size})
        return prepare(config.model_copy(update={"train": train}), random_images(config, 128), CPU)

    real = build(32)
    real.train_step(0)

    def error():
        cost = training_cost(build, 32, CPU, limit=5)
        assert cost.measured_batch == 32
        started = time.perf_counter()
        for step in range(1, 11):
            real.train_step(step)
        return abs(cost.step_seconds / ((time.perf_counter() - started) / 10) - 1)

    # Three tries, because other work on the machine may begin or end between the two.
    assert any(error() < 0.2 for _ in range(3))


class Slow:
    """A training whose step takes a known time, and whose device is a CPU's."""

    device = CPU

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def train_step(self, step: int) -> None:
        self.clock[0] += self.seconds


def test_time_and_memory_of_a_large_batch_are_on_the_line_through_two_small_ones(monkeypatch):
    Slow.clock, sizes = [0.0], []
    monkeypatch.setattr("ddpm.commands.estimate.time.perf_counter", lambda: Slow.clock[0])
    monkeypatch.setattr("ddpm.commands.estimate.peak_memory", lambda device: 1e9 + 1e7 * sizes[-1])

    def build(size):
        sizes.append(size)
        return Slow(0.5 + 0.1 * size)

    cost = training_cost(build, 128, CPU, limit=30)
    assert sizes[0] == 2 and 4 <= cost.measured_batch == sizes[-1] < 128
    assert cost.step_seconds == pytest.approx(0.5 + 12.8) and cost.memory == pytest.approx(1e9 + 1.28e9)
    assert Slow.clock[0] < 40  # the limit is kept, roughly


@pytest.mark.parametrize(("parts", "sizes"), [(8, [8, 16]), (3, [3, 6])])
def test_batches_that_are_measured_have_as_many_parts_as_the_whole_one(monkeypatch, parts, sizes):
    """Memory is that of one part, so the line would be bent where a part has one image and cannot have fewer."""
    Slow.clock, built = [0.0], []
    monkeypatch.setattr("ddpm.commands.estimate.time.perf_counter", lambda: Slow.clock[0])
    monkeypatch.setattr("ddpm.commands.estimate.peak_memory", lambda device: 1e9 + 1e7 * -(-built[-1] // parts))
    cost = training_cost(lambda size: built.append(size) or Slow(1.0 * size), 96, CPU, parts, limit=5)
    assert built == sizes and cost.memory == pytest.approx(1e9 + 1e7 * 96 / parts)


def test_a_disturbed_clock_never_makes_a_fixed_part_negative(monkeypatch):
    Slow.clock = [0.0]
    monkeypatch.setattr("ddpm.commands.estimate.time.perf_counter", lambda: Slow.clock[0])
    cost = training_cost(lambda size: Slow(1.0 if size < 4 else 5.0 * size / 4), 128, CPU, limit=5)
    assert cost.step_seconds == pytest.approx(160)


def test_a_small_batch_that_other_work_held_up_is_forgotten(monkeypatch):
    Slow.clock, sizes = [0.0], []
    monkeypatch.setattr("ddpm.commands.estimate.time.perf_counter", lambda: Slow.clock[0])
    build = lambda size: sizes.append(size) or Slow(9.0 if size == 2 else 0.5 + 0.1 * size)  # noqa: E731
    cost = training_cost(build, 128, CPU, limit=20)
    assert sizes == [2, 4, 8] and cost.step_seconds == pytest.approx(0.5 + 12.8)


def test_steps_that_are_slower_than_the_limit_are_measured_at_two_sizes_nonetheless(monkeypatch):
    Slow.clock, sizes = [0.0], []
    monkeypatch.setattr("ddpm.commands.estimate.time.perf_counter", lambda: Slow.clock[0])

    def build(size):
        sizes.append(size)
        return Slow(3.0 + 2.0 * size)

    cost = training_cost(build, 256, CPU, limit=5)
    assert sizes == [4, 8] and cost.step_seconds == pytest.approx(515)


def test_time_of_a_warm_up_is_not_counted(monkeypatch):
    Slow.clock = [0.0]
    monkeypatch.setattr("ddpm.commands.estimate.time.perf_counter", lambda: Slow.clock[0])

    class Compiled(Slow):
        def train_step(self, step):
            self.clock[0] += 0.5 if step == 0 else 0.01

    assert step_seconds(Compiled(0)) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("channels", "heads", "remedy"),
    [(160, 32, "set model.channels to 64"), (96, 48, "set model.channels to 48"), (8, 8, "end other programs")],
)
def test_a_narrower_network_that_is_advised_is_one_that_can_be_built(params, channels, heads, remedy):
    params["model"] |= {"channels": channels, "channel_mults": [1, 2, 3, 4], "head_channels": heads}
    params["train"] |= {"batch_size": 1, "checkpoint_activations": True}
    assert needs(parse_config(params), ALONE)[1].startswith(remedy)


@pytest.mark.parametrize(("fitting", "found"), [(100, 64), (16, 16), (1, 1), (0, None)])
def test_the_largest_batch_that_fits_is_found_by_halving(fitting, found):
    def build(size):
        if size > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Slow(0)

    Slow.clock = [0.0]
    assert largest_batch(build, 128) == found


def test_the_predicted_time_of_sampling_is_that_of_sampling(tiny, monkeypatch):
    count_processor_time(monkeypatch)
    config = parse_config(tiny)
    packed = random_images(config, 64)
    training = prepare(config, packed, CPU)
    model = DiffusionModel(training.ema.model, describe_model(config, packed, training))
    options = config.sample.model_dump(exclude={"n"})

    def error():
        predicted = sampling_seconds(model, config.sample, seed=0, size=config.sample.batch_size)
        started = time.perf_counter()
        model.sample(config.sample.n, seed=0, **options)
        return abs(predicted / (time.perf_counter() - started) - 1)

    assert any(error() < 0.2 for _ in range(5))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (40, "40 s"), (125, "2 min"), (7800, "2 h 10 min"), (3600 * 76, "3 d 4 h"), (3599, "1 h 0 min")],
)
def test_durations_are_told_in_two_units(seconds, text):
    assert duration(seconds) == text


def test_what_is_left_of_a_training_is_told_in_a_few_words():
    assert re.fullmatch(r"about 2 h 10 min, \d+\.\d GB", forecast(130, 60.0, CPU))


def test_random_images_are_what_the_parameters_ask_for(tiny):
    tiny["model"]["conditional"] = True
    config = parse_config(tiny)
    packed = random_images(config, 40, classes=5)
    training = prepare(config, packed, CPU)
    assert packed.images.shape == (40, 16, 16, 3) and len(training.train_set) == 36
    assert training.unet.none_class == 5


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


@pytest.mark.parametrize(
    ("accumulate", "fitting", "remedy"),
    [
        (1, 10, "8 fits; set it to that, or train.accumulate to 4"),
        (4, 20, "16 fits; set it to that, or train.accumulate to 8"),
        (1, 0, "not even 1 image fits; lower model.channels"),
    ],
)
def test_a_batch_that_does_not_fit_into_the_gpu_is_a_problem_with_a_number_as_remedy(
    doctor, monkeypatch, accumulate, fitting, remedy
):
    """As on a GPU that a batch of more than `fitting` images fills, whichever step measures it."""
    take = Training.train_step

    def step(self, number):
        return take(self, number) if self.config.batch_size <= fitting else out_of_memory()

    monkeypatch.setattr(Training, "train_step", step)
    code, printed = doctor(train={"accumulate": accumulate})
    assert code == 1 and f"train.batch_size: 32 images do not fit into this GPU; {remedy}\n" in printed


@pytest.fixture
def quick(monkeypatch):
    """A doctor who knows what a step costs."""
    monkeypatch.setattr("ddpm.commands.estimate.training_cost", lambda *_: Cost(1.0, 1e9, 32))
    monkeypatch.setattr("ddpm.commands.estimate.scoring_seconds", lambda *_: 1.0)


@pytest.mark.parametrize(
    ("batch_size", "fitting", "said"),
    [
        (16, 2, "sample.batch_size: 16 images do not fit into this GPU; 2 fits; set it to that, or to auto"),
        (16, 0, "sample.batch_size: 16 images do not fit into this GPU; not even 1 image fits; lower model.channels"),
        ("auto", 2, None),  # as the stage itself, it goes on with what fits
        ("auto", 0, "sample.batch_size: 16 images do not fit into this GPU; not even 1 image fits; lower model"),
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
    monkeypatch.setattr("ddpm.commands.estimate.scoring_seconds", out_of_memory)
    code, printed = doctor()
    assert code == 1 and "do not fit into this GPU; lower fid.batch_size (100), or sample.n (16)" in printed


def test_the_disk_holds_a_download_in_the_store_in_the_workspace_and_in_the_cache(params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse_config(params)
    before = checks.disk_bytes(config, 10**6, 8189)
    archive = tmp_path / "data/raw" / ARCHIVE
    archive.parent.mkdir(parents=True)
    archive.touch()
    without_archive = checks.disk_bytes(config, 10**6, 8189)
    assert before - without_archive == pytest.approx(3 * 345e6)
    params["fid"] |= {"extractor": "efficientnet_lite0"}
    assert without_archive - checks.disk_bytes(parse_config(params), 10**6, 8189) == pytest.approx(3 * 96e6)


def test_a_wrong_parameter_is_told_before_any_work(doctor):
    code, printed = doctor(train={"batch_size": 0})
    assert code == 2 and printed.startswith("error: params.yaml: train.batch_size: found 0")


def test_each_fault_is_a_line_with_its_remedy(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setattr(checks, "PACKAGES", ("torch", "no_such_package"))
    tiny["data"] |= {"source": "folder", "path": str(tmp_path / "nowhere")}
    tiny["fid"] |= {"extractor": "inception", "weights": "nowhere.pth"}
    tiny["sample"] |= {"n": 10_000_000}
    tiny["data"] |= {"image_size": 128}
    tiny["model"] |= {"attention": []}
    (tmp_path / "mlflow.db").write_text("no database")
    found = {check.what: check for check in checks.run_checks(parse_config(tiny), 10**12, CPU)}
    assert {check.state for check in found.values()} == {"problem"}
    assert found["packages"].sentence == "no_such_package missing; run `make install`"
    assert found["images"].sentence.endswith("nowhere is no folder; name the folder that holds your images")
    assert found["feature weights"].sentence == "fid.weights: nowhere.pth is no file; correct it or set it to null"
    assert "free some space" in found["disk"].sentence
    assert "mlflow.db cannot be read" in found["MLflow"].sentence


def test_a_server_that_does_not_answer_is_a_problem(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:s3cret@127.0.0.1:9")
    found = {check.what: check for check in checks.run_checks(parse_config(tiny), 1000, CPU)}
    assert found["MLflow"].state == "problem" and "127.0.0.1:9 does not answer" in found["MLflow"].sentence
    assert "s3cret" not in found["MLflow"].sentence


def test_a_store_in_use_is_fine(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    with sqlite3.connect("mlflow.db") as connection:
        connection.execute("CREATE TABLE experiments (id INTEGER)")
    found = {check.what: check for check in checks.run_checks(parse_config(tiny), 1000, CPU)}
    assert found["MLflow"].state == "OK"


@pytest.mark.parametrize(("splits", "count"), [(["train", "val", "test"], 8189), (["train"], 1020)])
def test_images_of_flowers102_are_known_before_they_are_there(params, tmp_path, monkeypatch, splits, count):
    monkeypatch.chdir(tmp_path)
    params["data"] |= {"splits": splits}
    assert checks.count_images(parse_config(params)) == count


def test_packed_images_count_where_they_are_what_is_asked_for(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/processed").mkdir(parents=True)
    summary = {"source": "synthetic", "image_size": 16, "count": 77, "skipped": [{}, {}]}
    Path("data/processed/summary.json").write_text(json.dumps(summary))
    tiny["data"]["synthetic"]["count"] = 79
    assert checks.count_images(parse_config(tiny)) == 77  # two of 79 could not be read
    tiny["data"]["synthetic"]["count"] = 300
    assert checks.count_images(parse_config(tiny)) == 300
    tiny["data"] |= {"synthetic": tiny["data"]["synthetic"] | {"count": 79}, "image_size": 32}
    tiny["model"] |= {"attention": [16]}
    assert checks.count_images(parse_config(tiny)) == 79
    Path("data/processed/summary.json").write_text("[]")
    assert checks.count_images(parse_config(tiny)) == 79


def test_images_of_a_folder_are_counted(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/rose").mkdir(parents=True)
    for name in ("mine/a.JPG", "mine/rose/b.png", "mine/notes.txt"):
        Path(name).touch()
    tiny["data"] |= {"source": "folder", "path": str(tmp_path / "mine")}
    assert checks.count_images(parse_config(tiny)) == 2
