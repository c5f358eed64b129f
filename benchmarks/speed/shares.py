"""What part of a training's time goes elsewhere than into its steps."""

import os
import statistics
import tempfile
from pathlib import Path
from unittest import mock

import torch

from ddpm.commands.estimate import random_images, seconds_of, step_seconds
from ddpm.config import Config
from ddpm.runtime.checkpoint import SECONDS, SHARE, checkpoint_for
from ddpm.runtime.devices import choose_device
from ddpm.runtime.interpreter import lacking
from ddpm.tracking import training_run
from ddpm.training.batches import BatchOrder
from ddpm.training.loop import Training
from ddpm.training.setup import prepare

REPEATS = 20


def measure_shares(config: Config) -> dict[str, float | None]:
    """Time a step, the making of its batch, a point in MLflow and a checkpoint, and relate them as the loop calls them.

    Returns:
        The four in seconds, and the shares of the last three in the time of a training; None for the point in MLflow
        where it is not installed or turned off.
    """
    training = prepare(config, random_images(config, 8 * config.train.batch_size), choose_device(config.device))
    step = step_seconds(training)

    order = BatchOrder(len(training.train_set), config.train.batch_size, config.seed)

    def load(number: int) -> None:
        training.train_set.batch(torch.from_numpy(order.rows(number)))

    loading = statistics.median(seconds_of(lambda n=n: load(n), training.device) for n in range(REPEATS))
    # An MLflow store and checkpoints of its own; MLFLOW_TRACKING_URI, if any, is left: it is that server's speed then.
    with tempfile.TemporaryDirectory() as root, mock.patch.dict(os.environ, {"DVC_ROOT": root}):
        (Path(root) / ".dvc").mkdir()
        with checkpoint_for("benchmark") as checkpoint:
            saving = statistics.median(
                seconds_of(lambda: checkpoint.save(training.state()), training.device) for _ in range(3)
            )
        tracking = _tracking_seconds(config, training)
    return {
        "step_seconds": step,
        "loading_seconds": loading,
        "tracking_seconds": tracking,
        "checkpoint_seconds": saving,
        "loading_share": loading / step,
        "tracking_share": tracking / (config.train.log_every * step) if tracking else None,
        "checkpoint_share": saving / max(SECONDS, SHARE * saving),
    }


def _tracking_seconds(config: Config, training: Training) -> float | None:
    """Time of a point of the training curve in MLflow."""
    if not config.tracking.enabled or lacking("mlflow"):
        print("The share of tracking is left out: MLflow is not installed, or tracking.enabled is false.")
        return None
    point = {f"train/{name}": 0.5 for name in (*training.curves, "learning_rate", "images_per_second")}
    with training_run(config, "benchmark") as tracker:
        return statistics.median(
            seconds_of(lambda n=n: tracker.metrics(point, n), training.device) for n in range(REPEATS)
        )
