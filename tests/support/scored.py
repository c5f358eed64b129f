"""Trainings and their scores in a store, as the stages record them."""

import hashlib
from pathlib import Path

import numpy as np

from ddpm.config import Config
from ddpm.data.pictures import grid, save_png
from ddpm.tracking import runs as tracking
from ddpm.tracking.identity import TRAINING, run_filter
from tests.support.tracked import client

TAGS = {"extractor": "inception", "weights.sha256": "b" * 64, "data.sha256": "d" * 64}
SUMMARY = {"count": 8189, "class_names": [f"class {number}" for number in range(102)]}


def with_training(config: Config, **values: object) -> Config:
    """Other values of schedule, epochs or seed."""
    return config.model_copy(update=values)


def record_training(config: Config, device: str = "NVIDIA H100", seconds: float = 3600.0) -> str:
    """Record a finished training with its curves; returns its key."""
    key = hashlib.sha256(config.model_dump_json(include=TRAINING).encode()).hexdigest()
    with tracking.training_run(config, key) as run:
        run.tags({"device": device, "data.sha256": TAGS["data.sha256"]})
        run.dataset(config.data, SUMMARY, TAGS["data.sha256"], "training")
        for step in range(1, 5):
            run.metrics({"train/loss": 1 / step, "quick/epoch": config.epochs * step / 4}, step=100 * step)
            run.metrics({"quick/fid": (70 if config.schedule == "linear" else 50) / step + 15}, step=100 * step)
        run.metrics({"seconds/train": seconds})
    return key


def record_scores(
    config: Config,
    key: str,
    fid: float,
    half: float = 0.5,
    images: np.ndarray | None = None,
    folder: Path | None = None,
) -> str:
    """Record scores as the report stage does: FID ± half, and a grid of images, (64, H, W, 3) uint8; returns run_id."""
    extractor = config.fid.extractor
    scores = {"fid": fid, "fid_low": fid - half, "fid_high": fid + half, "fid_floor": 3.2}
    scores |= {"kid": fid / 2000, "kid_low": fid / 2200, "kid_high": fid / 1800, "kid_floor": 0.0001}
    scores |= {"precision": 0.7, "precision_low": 0.68, "precision_high": 0.72, "precision_floor": 0.75}
    scores |= {"recall": 0.4, "recall_low": 0.36, "recall_high": 0.44, "recall_floor": 0.75}
    scores |= {"memorisation": 0.98, "memorisation_low": 0.97, "memorisation_high": 0.99}
    with tracking.later_stage(config, key) as run:
        run.scores({f"{extractor}/{name}": value for name, value in scores.items()})
        run.dataset(config.data, SUMMARY, TAGS["data.sha256"], "evaluation")
        run.tags(TAGS | {"extractor": extractor})
        if images is not None:
            save_png(grid(images, columns=8), folder / "samples" / "grid.png")
            run.artifacts(folder / "samples", "report/samples")

    store = client(Path.cwd())
    experiment = store.get_experiment_by_name(config.tracking.experiment)
    found = store.search_runs([experiment.experiment_id], run_filter(config, key))[0]
    if "fid.reference" not in found.data.params:
        store.log_param(found.info.run_id, "fid.reference", "all")
    return found.info.run_id
