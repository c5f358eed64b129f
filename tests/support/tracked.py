"""A tracked training and its scores, and a look into the store that holds them."""

import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from ddpm import tracking
from ddpm.config import Config

TRAIN = "a" * 64
NOWHERE = "http://127.0.0.1:9"  # "discard", where nothing listens


def changed(config: Config, group: str, **values: object) -> Config:
    return config.model_copy(update={group: getattr(config, group).model_copy(update=values)})


def client(root: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")


def runs(root: Path, config: Config) -> list[Run]:
    """All runs of the test's experiment, newest first."""
    experiment = client(root).get_experiment_by_name(config.tracking.experiment)
    assert experiment is not None
    return client(root).search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])


def train(config: Config) -> None:
    with tracking.training_run(config, TRAIN) as run:
        run.metrics({"loss": 0.5}, step=1)
    time.sleep(0.002)  # start times are milliseconds, and later runs shall be newer


def score(config: Config, fid: float) -> None:
    with tracking.later_stage(config, TRAIN) as run:
        run.metrics({"fid": fid})


def unsent_folders(root: Path) -> list[Path]:
    """What failing stores missed, a folder for each attempt."""
    return list((root / ".unsent").glob("*"))
