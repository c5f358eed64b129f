"""MLflow, the record of what was run: DVC keeps the results, so a failing store never costs an experiment."""

import fcntl
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddpm.config import Config, flatten
from ddpm.lineage import origin
from ddpm.paths import from_main_root

if TYPE_CHECKING:  # importing MLflow takes seconds, and half of the stages do not track
    from mlflow import MlflowClient
    from mlflow.entities import Run

TRAINING = {"schedule", "epochs", "seed", "data", "model", "diffusion", "train"}
SCORING = {"sample", "fid"}
# What tells two sets of scores of one training apart; batch sizes and the place of a file do not.
SCORE_IDENTITY = (
    "sample.n",
    "sample.sampler",
    "sample.steps",
    "sample.spacing",
    "sample.eta",
    "sample.variance",
    "fid.extractor",
)

KEY = "pipeline.key"  # which training
OPENED_BY = "pipeline.opened_by"  # train | score
PARENT = "mlflow.parentRunId"  # MLflow's own tag: the UI nests this run below that one

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # MLflow's own 7 hold every call to a dead server for four minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds; with one retry, a silent server costs a dozen
    "MLFLOW_DISABLE_TELEMETRY": "true",  # no stage but download uses the network
    "MLFLOW_LOGGING_LEVEL": "ERROR",  # the terminal shows our lines, not those about database migrations
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Tracker:
    """One MLflow run: the first failure of its store is reported in a sentence, and after it nothing more is sent."""

    def __init__(self, client: "MlflowClient | None" = None, run_id: str = "") -> None:
        # Without a client, as with tracking.enabled: false, every call does nothing.
        self._client, self._run_id = client, run_id
        self._last_steps: dict[str, int] = {}

    def skip_repeated_points(self) -> None:
        """Leave out points that the run has: going on from a checkpoint repeats the steps since it was written."""
        self._try(lambda client: self._last_steps.update(_last_steps(client, self._run_id)))

    def tags(self, tags: dict[str, str]) -> None:
        """Set or replace tags."""
        self._try(lambda client: _log(client, self._run_id, {}, tags))

    def metrics(self, metrics: dict[str, float], step: int = 0) -> None:
        """Add one point to each of these curves that is not that far yet, in a single call to the store."""
        new = {name: value for name, value in metrics.items() if step > self._last_steps.get(name, -1)}
        self._try(lambda client: _log_metrics(client, self._run_id, new, step))

    def image(self, key: str, image: np.ndarray, step: int) -> None:
        """Add a picture, (H, W, 3) uint8, to a series that the UI can scroll through by step."""
        # synchronous: nothing is left in a queue if the process is killed.
        self._try(lambda client: client.log_image(self._run_id, image, key=key, step=step, synchronous=True))

    def artifacts(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or all files below a folder, to `folder` of the run's artifacts (default: their root)."""
        copy = "log_artifacts" if path.is_dir() else "log_artifact"
        self._try(lambda client: getattr(client, copy)(self._run_id, str(path), folder))

    def end(self, status: str) -> None:
        """Set the final status, FINISHED or FAILED, and the end time."""
        self._try(lambda client: client.set_terminated(self._run_id, status))

    def _try(self, action: Callable[["MlflowClient"], object]) -> None:
        if self._client is None:
            return
        try:
            action(self._client)
        except Exception as error:
            self._client = None  # a dead server must not cost its timeout at every call
            _warn(error)


@contextmanager
def training_run(config: Config, key: str, resumed: bool = False) -> Iterator[Tracker]:
    """Track a training in a new run that ends with the block: FINISHED, or FAILED after any exception or signal.

    Args:
        config: parameters of the training, recorded in the run.
        key: identity of the training (`lineage.stage_key`), by which later stages find the run.
        resumed: the training goes on from a checkpoint, so go on with the run of its interrupted attempt as well.
    """
    tracker, _ = _connect(config, lambda store: (_training(store, config, key, resumed), True))
    if resumed:
        tracker.skip_repeated_points()
    with _ending(tracker):
        yield tracker


@contextmanager
def later_stage(config: Config, train_key: str) -> Iterator[Tracker]:
    """Add the scores of a trained model to the run of its training, whose status and times stay as they are.

    The first set of samples joins the training's own run. Each further one (same training, other sampler settings)
    gets a child run with a copy of the training's parameters, so that the UI compares one row per setting. Where
    this store knows no such training, a new run with all parameters is opened, and a printed sentence says so.

    Args:
        config: parameters of sampling and scoring, recorded in the run.
        train_key: identity of the training, as given to `training_run`.
    """
    tracker, opened = _connect(config, lambda store: _scoring(store, config, train_key))
    with _ending(tracker) if opened else nullcontext():
        yield tracker


@dataclass(frozen=True)
class _Store:
    """One experiment of a tracking store."""

    client: "MlflowClient"
    experiment_id: str

    def runs(self, key: str) -> "list[Run]":
        """All runs of a training, newest first."""
        return self.client.search_runs(
            [self.experiment_id], f"tags.`{KEY}` = '{key}'", order_by=["attributes.start_time DESC"]
        )

    def open(self, name: str, params: dict[str, object], tags: dict[str, str]) -> str:
        """Id of a new run with status RUNNING."""
        run = self.client.create_run(self.experiment_id, tags=tags | origin(), run_name=name)
        _log(self.client, run.info.run_id, params, {})
        return run.info.run_id

    def reopen(self, run: "Run") -> str:
        """Id of an existing run, with its status back at RUNNING."""
        self.client.update_run(run.info.run_id, status="RUNNING")
        return run.info.run_id


def _training(store: _Store, config: Config, key: str, resumed: bool) -> str:
    """Id of the run in which to track a training."""
    earlier = [run for run in store.runs(key) if run.data.tags.get(OPENED_BY) == "train"] if resumed else []
    if earlier and earlier[0].info.status != "FINISHED":
        return store.reopen(earlier[0])
    return store.open(_name(config), _params(config, TRAINING), {KEY: key, OPENED_BY: "train"})


def _scoring(store: _Store, config: Config, train_key: str) -> tuple[str, bool]:
    """Id of the run to which these scores belong, and whether the caller has to end it."""
    runs = store.runs(train_key)
    params = _params(config, SCORING)
    tags = {KEY: train_key, OPENED_BY: "score"}
    trainings = [run for run in runs if PARENT not in run.data.tags]
    if not trainings:
        print("MLflow has no run of this training (restored from DVC's cache, or trained elsewhere): opening a new one")
        return store.open(_name(config), _params(config, TRAINING) | params, tags), True

    # A finished attempt is the one whose model is scored; failed ones may have come after it.
    training = max(trainings, key=lambda run: (run.info.status == "FINISHED", run.info.start_time))
    children = [run for run in runs if run.data.tags.get(PARENT) == training.info.run_id]
    for run in (training, *children):
        # A run that has no scores yet lacks these parameters, and so agrees.
        if all(run.data.params.get(name, str(params[name])) == str(params[name]) for name in SCORE_IDENTITY):
            return _join(store, run, params)
    params = training.data.params | params
    return store.open(_name(config, sampler=True), params, tags | {PARENT: training.info.run_id}), True


def _join(store: _Store, run: "Run", params: dict[str, object]) -> tuple[str, bool]:
    """Claim an existing run for these scores; only one that a later stage left unfinished is the caller's to end."""
    # MLflow refuses a second value of a parameter, and batch sizes may have changed.
    new = {name: value for name, value in params.items() if name not in run.data.params}
    _log(store.client, run.info.run_id, new, {})
    if run.data.tags.get(OPENED_BY) == "score" and run.info.status != "FINISHED":
        return store.reopen(run), True
    return run.info.run_id, False


def _connect(config: Config, find: Callable[[_Store], tuple[str, bool]]) -> tuple[Tracker, bool]:
    """Tracker of the run that `find` names, and whether to end it; one that does nothing if the store fails."""
    if not config.tracking.enabled:
        return Tracker(), False
    try:
        os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
        import mlflow

        uri, database = _location()
        # One process at a time also while runs are looked up, so that two stages never claim the same one.
        with _locked(Path(f"{database}.lock")):
            if uri.startswith("sqlite:") and not database.exists():
                _create(database)
            client = mlflow.MlflowClient(tracking_uri=uri)
            run_id, opened = find(_Store(client, _experiment(client, config.tracking.experiment, uri, database)))
        return Tracker(client, run_id), opened
    except Exception as error:
        _warn(error)
        return Tracker(), False


def _location() -> tuple[str, Path]:
    """URI of the store, and its SQLite file (for a server: the place of the default one)."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith("sqlite:///"):
        database = from_main_root(uri.removeprefix("sqlite:///"))
        return f"sqlite:///{database}", database
    return uri, from_main_root("mlflow.db")


def _artifact_root(database: Path) -> str:
    return (database.parent / "mlartifacts").as_uri()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by a kill
        yield


def _create(database: Path) -> None:
    """Create a SQLite store aside and rename it: one whose creation was killed half-way stays broken for ever."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    aside = database.with_name(f"{database.name}.init")
    for leftover in database.parent.glob(f"{aside.name}*"):
        leftover.unlink()
    SqlAlchemyStore(f"sqlite:///{aside}", _artifact_root(database)).engine.dispose()  # type: ignore[no-untyped-call]
    with closing(sqlite3.connect(aside)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # parallel experiments wait less for each other
    aside.rename(database)


def _experiment(client: "MlflowClient", name: str, uri: str, database: Path) -> str:
    """Id of the experiment, created at first use."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return experiment.experiment_id
    # A server keeps artifacts where it likes; MLflow's default for a database is a folder below the current one.
    return client.create_experiment(name, None if uri.startswith("http") else _artifact_root(database))


@contextmanager
def _ending(tracker: Tracker) -> Iterator[None]:
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        tracker.end(status)


def _params(config: Config, groups: set[str]) -> dict[str, object]:
    return flatten(config.model_dump(include=groups))


def _name(config: Config, sampler: bool = False) -> str:
    """What a person calls the run: "cosine · 300 epochs · ddim 100 steps"."""
    name = f"{config.schedule} · {config.epochs} epoch{'s' * (config.epochs != 1)}"
    return f"{name} · {config.sample.sampler} {config.sample.steps} steps" if sampler else name


def _log(client: "MlflowClient", run_id: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
    from mlflow.entities import Param, RunTag

    client.log_batch(
        run_id,
        params=[Param(name, str(value)) for name, value in params.items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
        synchronous=True,
    )


def _log_metrics(client: "MlflowClient", run_id: str, metrics: dict[str, float], step: int) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    points = [Metric(name, float(value), now, step) for name, value in metrics.items()]
    client.log_batch(run_id, metrics=points, synchronous=True)


def _last_steps(client: "MlflowClient", run_id: str) -> dict[str, int]:
    """Step of the last point of each curve of a run."""
    curves = {name: client.get_metric_history(run_id, name) for name in client.get_run(run_id).data.metrics}
    return {name: max(point.step for point in points) for name, points in curves.items()}


def _warn(error: Exception) -> None:
    reason = " ".join(str(error).split())[:200]
    print(
        f"warning: MLflow failed ({type(error).__name__}: {reason}), so what follows is missing there; "
        "the results in models/ and reports/ are not affected",
        file=sys.stderr,
    )
