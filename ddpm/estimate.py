"""What the work will cost on this machine: measured over a few steps of the real network, without the data."""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ddpm.config import Config
from ddpm.dataset import PackedImages
from ddpm.training import Training

# float32: weights, gradients, AdamW's two moments, averaged weights.
STATE_BYTES = 5 * 4
WARM_UP = 2  # steps; the second one still sets up memory
SMALLEST = 32  # a CPU begins with so small a part of the batch
CHUNKS = 3  # timed one after the other; their median counts


@dataclass(frozen=True)
class Cost:
    """What a training step costs.

    step_seconds: of the whole batch.
    memory: bytes at the peak; of the GPU, or of the process where there is none.
    measured_batch: the batch that was measured; less than the whole one where that would have taken too long.
    """

    step_seconds: float
    memory: float
    measured_batch: int


def random_images(config: Config, count: int, classes: int = 2) -> PackedImages:
    """Random pixels in the shape that the parameters ask for, of which a step takes as long as of photographs.

    Args:
        config: says how large they are.
        count: how many.
        classes: how many, for a conditional model.
    """
    side = config.data.image_size
    return PackedImages(
        np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        pd.DataFrame({"id": [str(number) for number in range(count)], "label": np.arange(count) % classes}),
        {"source": "random", "class_names": [str(c) for c in range(classes)], "class_counts": [1] * classes},
    )


def seconds_of(action: Callable[[], object], device: torch.device) -> float:
    """Time one call, until the device has finished it."""
    started = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def step_seconds(training: Training, chunk_seconds: float = 1.0) -> float:
    """Time of one optimisation step, in seconds: the median of three chunks of steps, after a warm-up.

    Args:
        training: its weights change.
        chunk_seconds: how long a chunk shall last, unless a step alone takes longer.
    """
    step = 0

    def take(count: int) -> None:
        nonlocal step
        for _ in range(count):
            training.train_step(step)
            step += 1

    device = training.device
    first = [seconds_of(lambda: take(1), device) for _ in range(WARM_UP)]
    # At most 50, because the first steps of all may include a compilation and are no guide.
    count = min(50, max(1, int(chunk_seconds / first[-1])))
    return statistics.median(seconds_of(lambda: take(count), device) / count for _ in range(CHUNKS))


def training_cost(build: Callable[[int], Training], batch_size: int, limit: float = 30.0) -> Cost:
    """Measure a training step and its memory; the largest part of the batch that is quick enough, and from there on.

    A GPU takes the whole batch. A CPU begins with a small part of it, goes on to the whole one or to the largest part
    that `limit` allows, and continues the straight line through both: time and memory are linear in the batch.

    Args:
        build: makes a fresh training with so many images per step.
        batch_size: images per step that are asked for.
        limit: seconds to spend, roughly.

    Raises:
        torch.OutOfMemoryError: the batch does not fit into the GPU.
    """
    started = time.perf_counter()
    points: list[tuple[int, float, float]] = []  # images, seconds, bytes
    size = max(1, batch_size // SMALLEST)
    while True:
        training = build(size)
        if training.device.type == "cuda" and size < batch_size:
            size = batch_size
            continue
        points.append((size, step_seconds(training), peak_memory(training.device)))
        left = limit - (time.perf_counter() - started)
        # Of the next size, the warm-up and the chunks are to be paid.
        affordable = int(left / (WARM_UP + CHUNKS) / points[-1][1] * size)
        if size == batch_size or affordable < 2 * size:
            break
        size = min(batch_size, affordable)
    return Cost(_at(batch_size, points, 1), _at(batch_size, points, 2), size)


def peak_memory(device: torch.device) -> float:
    """Most bytes that were in use so far: of the GPU by PyTorch, or of this process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kilobytes


def forecast(training: Training, seconds_per_step: float) -> str:
    """Say what is left of a training, such as "about 2 h 10 min, 9.1 GB".

    Args:
        training: after a few steps, so that the peak of its memory was reached.
        seconds_per_step: as those few steps took, without the first one.
    """
    left = (training.steps - training.progress.steps) * seconds_per_step
    return f"about {duration(left)}, {peak_memory(training.device) / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """Seconds for people, to two units at most: "40 s", "12 min", "2 h 10 min", "3 d 4 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def _at(size: int, points: list[tuple[int, float, float]], place: int) -> float:
    """Value at `size` of the straight line through the last two points, or through the origin and the only one."""
    (x1, y1), (x2, y2) = (
        (points[-2][0], points[-2][place]) if len(points) > 1 else (0, 0.0),
        (
            points[-1][0],
            points[-1][place],
        ),
    )
    return y2 + (y2 - y1) / (x2 - x1) * (size - x2)
