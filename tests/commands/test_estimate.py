"""What the doctor predicts, against closed forms and against a training that really runs."""

import re
import time

import pytest
import torch

from ddpm.commands import estimate
from ddpm.commands.estimate import (
    largest_batch,
    random_images,
    sampling_seconds,
    step_seconds,
    training_cost,
)
from ddpm.config import parse_config
from ddpm.model.trained import DiffusionModel
from ddpm.network.unet import count_parameters
from ddpm.runtime.distributed import ALONE
from ddpm.runtime.forecast import forecast
from ddpm.runtime.progress import duration
from ddpm.training.setup import describe_model, needs, planned_parameters, prepare
from ddpm.training.step import STATE_BYTES

CPU = torch.device("cpu")


def test_a_training_holds_five_numbers_of_four_bytes_per_parameter(tiny):
    config = parse_config(tiny)
    training = prepare(config, random_images(config, 64), CPU)
    training.train_step(0)
    parameters = list(training.unet.parameters())
    moments = [training.optimisation.optimizer.state[p][name] for p in parameters for name in ("exp_avg", "exp_avg_sq")]
    held = [*parameters, *(p.grad for p in parameters), *moments, *training.ema.model.parameters()]
    assert sum(t.numel() * t.element_size() for t in held) == STATE_BYTES * count_parameters(training.unet)


@pytest.mark.parametrize("patch", [2, 4])
def test_the_doctor_counts_and_measures_the_network_on_patches(tiny, patch, monkeypatch):
    monkeypatch.setattr(estimate, "CHUNK_SECONDS", 0.1)
    tiny["model"] |= {"patch": patch, "attention": [16 // patch]}
    config = parse_config(tiny)
    images = random_images(config, 64)
    training = prepare(config, images, CPU)
    assert training.unet.pixels.patch == patch
    assert planned_parameters(config, images) == count_parameters(training.unet)
    thin = 3 * 16 * 9 + 16 + 2 * 32 + 32 * 16 * 9 + 16 + 16 * 3 * 9 + 3  # numbers of the layers at full resolution
    thin += 32 * 16 + 16 + 64 * 32 + 32 + 2 * 16 + 16 * 16 * 9 + 16  # linear path, embedding, the second normalisation
    assert count_parameters(training.unet.pixels) == thin
    assert step_seconds(training) > 0
    model = DiffusionModel(training.ema.model, describe_model(config, images, training))
    assert sampling_seconds(model, config.sample, 0, 4) > 0


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
