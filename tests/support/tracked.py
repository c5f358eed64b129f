"""A tracked training and its scores, and a look into the store that holds them."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from ddpm.config import Config
from ddpm.tracking import runs as tracking

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


def copy_store(repository: Path, root: Path) -> Path:
    """Make a repository with a copy of the store of another one, which this process may have open.

    By SQLite, because reading the file and closing it would take this process's locks on it away.
    """
    (root / ".dvc").mkdir(parents=True)
    if not (repository / "mlflow.db").exists():
        return root
    databases = (sqlite3.connect(folder / "mlflow.db") for folder in (repository, root))
    with closing(next(databases)) as source, closing(next(databases)) as target:
        source.backup(target)
    return root


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
