"""What the work will cost on this machine: measured over a few steps of the real network, without the data."""

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import nn

from ddpm.config import Config, SampleConfig
from ddpm.data.dataset import PackedImages
from ddpm.evaluation.features import CPU_BATCH
from ddpm.evaluation.manifold import Manifold, density_coverage, precision_recall
from ddpm.evaluation.protocol import HALVES, RECALL_HALVES, SPLITS
from ddpm.evaluation.scores import MIN_IMAGES, FrechetDistance, fid, kid_blocks
from ddpm.model.trained import AUTO_BATCH, DiffusionModel
from ddpm.runtime.errors import unless_too_large
from ddpm.runtime.forecast import peak_memory
from ddpm.training.loop import Training

WARM_UP = 2  # steps
SMALLEST = 64  # a CPU begins with so small a part of the batch
CHUNKS = 3  # timed one after the other; their median counts
CHUNK_SECONDS = 1.0  # of each, unless a step alone takes longer
CPU_IMAGES = 4  # generated at a time; a processor is not faster with more
SAMPLING_STEPS = 5  # whose median counts
FEATURES = 10_000  # of each set at most, for the time of the scores; it hardly grows beyond


@dataclass(frozen=True)
class Cost:
    """What a training step costs.

    step_seconds: of the whole batch.
    memory: bytes at the peak; of the GPU, or of the process where there is none.
    measured_batch: the batch that was measured; less than the whole one where that would have taken too long.
    images: bytes of the memory that the images take; 0 where they stream from the disk.
    """

    step_seconds: float
    memory: float
    measured_batch: int
    images: int = 0


def planned_steps(config: Config, images: int) -> int:
    """Steps of a training with so many images, held-out ones among them; see `Training`."""
    trained = round(images * (1 - config.data.holdout))
    return math.ceil(config.epochs * trained / config.train.batch_size)


def random_images(config: Config, count: int, classes: int = 2) -> PackedImages:
    """Random pixels in the shape that the parameters ask for, of which a step takes as long as of photographs.

    Args:
        config: defines how large they are.
        count: how many.
        classes: how many, for a conditional model.
    """
    side, names = config.data.image_size, [str(label) for label in range(classes)]
    return PackedImages(
        np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        pd.DataFrame({"id": [str(number) for number in range(count)], "label": np.arange(count) % classes}),
        {"source": "random", "count": count, "class_names": names, "class_counts": [1] * classes},
    )


def seconds_of(action: Callable[[], object], device: torch.device) -> float:
    """Time one call, until the device has finished it."""
    started = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def step_timer(training: Training) -> Callable[[int], float]:
    """Make a function that takes so many further optimisation steps, and returns the seconds of one of them."""
    step = 0

    def take(count: int) -> None:
        nonlocal step
        for _ in range(count):
            training.train_step(step)
            step += 1

    return lambda count: seconds_of(lambda: take(count), training.device) / count


def step_seconds(training: Training) -> float:
    """Time of one optimisation step, in seconds: the median of a few chunks of steps, after a warm-up."""
    seconds = step_timer(training)
    first = [seconds(1) for _ in range(WARM_UP)]
    # The second step is the guide, because the first may include a compilation.
    count = min(50, max(1, int(CHUNK_SECONDS / first[-1])))
    if first[-1] > CHUNK_SECONDS:  # once more is enough: other work on the machine can only make it longer
        return min(first[-1], seconds(1))
    return statistics.median(seconds(count) for _ in range(CHUNKS))


def training_cost(
    build: Callable[[int], Training], batch_size: int, device: torch.device, parts: int = 1, limit: float = 30.0
) -> Cost:
    """Measure a training step and its memory, at the whole batch or the largest part of it that is quick enough.

    A GPU takes the whole batch. A CPU begins with a small part of it, goes on to the whole or to the largest part that
    `limit` allows, and then continues the straight line through the last two: time and memory are linear in the batch.

    Args:
        build: makes a fresh training with so many images per step.
        batch_size: images per step that are asked for.
        device: where `build` puts it.
        parts: `train.accumulate`; every batch has so many, or memory would not be linear.
        limit: seconds to spend, roughly.

    Raises:
        RuntimeError: the batch does not fit into the memory, see `errors.is_out_of_memory`.
    """
    started = time.perf_counter()
    points: list[tuple[int, float, float]] = []  # images, seconds, bytes
    size = batch_size if device.type == "cuda" else max(parts, batch_size // SMALLEST // parts * parts)
    while True:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = step_seconds(build(size))
        # Other work has held up a smaller batch that took longer: the line would fall, so it is forgotten.
        points = [*(point for point in points if point[1] < seconds), (size, seconds, peak_memory(device))]
        left = limit - (time.perf_counter() - started)
        # Of the next size, the warm-up and the chunks are to be paid; of a step longer than a chunk, one more.
        longest = left / (WARM_UP + 1)
        affordable = int((longest if longest > CHUNK_SECONDS else left / (WARM_UP + CHUNKS)) / points[-1][1] * size)
        if size == batch_size or (len(points) > 1 and affordable < 2 * size):
            return Cost(_at(batch_size, points, 1), _at(batch_size, points, 2), size)
        size = min(batch_size, max(2 * size, affordable // parts * parts))


def largest_batch(attempt: Callable[[int], object], batch_size: int) -> int | None:
    """Halve a batch that does not fit into the GPU until an attempt with it does; None if not even one image fits."""

    def tried(size: int) -> int:
        attempt(size)
        return size

    while batch_size > 1:
        batch_size //= 2
        gc.collect()  # what the last attempt has left; a compiled network refers to itself
        torch.cuda.empty_cache()
        torch.compiler.reset()  # it would soon give up on compiling for yet another size
        if fits := unless_too_large(partial(tried, batch_size)):
            return fits
    return None


def sampling_batch(config: SampleConfig, device: torch.device) -> int:
    """Number of images that the `sample` stage generates at a time, or tries to."""
    return min(config.n, AUTO_BATCH[device.type] if config.batch_size == "auto" else config.batch_size)


def sampling_seconds(model: DiffusionModel, config: SampleConfig, seed: int, size: int) -> float:
    """Predict the time of the `sample` stage from a few steps.

    Args:
        model: what generates.
        config: how.
        seed: of the noise.
        size: images at a time; on a CPU 4 at most, because more are not faster.

    Raises:
        RuntimeError: they do not fit into the memory, see `errors.is_out_of_memory`.
    """
    device = model.device
    size = min(size, CPU_IMAGES) if device.type == "cpu" else size
    options = config.model_dump(exclude={"n", "steps", "batch_size"}) | {"seed": seed, "batch_size": size}
    moments = []

    def step_ended(_images: int) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        moments.append(time.perf_counter())

    model.sample(size, steps=min(SAMPLING_STEPS, model.diffusion.timesteps), on_step=step_ended, **options)
    step = statistics.median(after - before for before, after in pairwise(moments))
    return step * config.steps * config.n / size


def scoring_seconds(extractor: nn.Module, config: Config, images: int) -> float:
    """Predict the time of the `fid` stage from the features of a few random images, and scores of random features."""
    device = next(extractor.parameters()).device
    size, side, n = (
        CPU_BATCH if device.type == "cpu" else config.fid.batch_size,
        config.data.image_size,
        config.sample.n,
    )
    batch = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, device=device)
    with torch.inference_mode():
        features = extractor(batch)  # warm up
        seconds = statistics.median(seconds_of(lambda: extractor(batch), device) for _ in range(CHUNKS))
    width = features.shape[1]
    real, fake = (torch.randn(min(count, FEATURES), width, device=device) for count in (max(images, MIN_IMAGES), n))
    distance = FrechetDistance(real, fake)
    half = seconds_of(lambda: distance(slice(len(fake) // 2)), device)
    every = torch.ones(1, len(fake), dtype=torch.bool, device=device)

    def split() -> None:
        balls = Manifold(real)
        fid(real, fake)
        kid_blocks(real, fake)
        precision_recall(balls, Manifold(fake))
        density_coverage(balls, fake, every)

    balls = seconds_of(lambda: Manifold(fake[: len(fake) // 2]).covers(real), device)
    return seconds / size * n + half * HALVES + balls * RECALL_HALVES + seconds_of(split, device) * (1 + SPLITS)


def _at(size: int, points: list[tuple[int, float, float]], place: int) -> float:
    """Value at `size` of the straight line through the last two points, or of the only one."""
    x, y = points[-1][0], points[-1][place]
    if x == size:
        return y
    x0, y0 = points[-2][0], points[-2][place]
    # No steeper than from the origin: what does not depend on the batch is not negative, whatever disturbed the clock.
    return y + min((y - y0) / (x - x0), y / x) * (size - x)
