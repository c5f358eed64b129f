"""What the MLflow store holds: finished work as a table, curves, files; nothing is written."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd

from ddpm.runtime.errors import InputError, RunError
from ddpm.tracking.database import find_experiment, location, masked, prepare
from ddpm.tracking.identity import KEY
from ddpm.tracking.recorder import reason
from ddpm.tracking.store import PARENT, run_of_training

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PAGE = 1000  # runs that one call returns
# What a run of further scores lacks, because it is on the run of the training.
OF_TRAINING = ("train/", "heldout/", "quick/", "seconds/train")

T = TypeVar("T")


def scored_runs(experiment: str, condition: str = "") -> pd.DataFrame:
    """The finished runs of an experiment that hold a FID, newest first.

    Args:
        experiment: name of the MLflow experiment.
        condition: MLflow's search filter; "" for all.

    Returns:
        One row per run: run_id, training (id of the run of its training, often the same), name, start_time (UTC),
        extractor, params.NAME (text), metrics.NAME (the last value; curves and time of the training also where they
        are on its run alone), tags.NAME (without MLflow's own). What a run lacks is NaN.

    Raises:
        InputError: no store, no such experiment, no such run, or a condition that is not MLflow's language.
        RunError: the store cannot be read.
    """
    client = _open()
    found = _read(lambda: find_experiment(client, experiment))
    if found is None:
        known = ", ".join(sorted(repr(other.name) for other in _read(client.search_experiments)))
        raise InputError(f"experiment {experiment!r}: MLflow knows only {known}; name one of them by --experiment")
    number = found.experiment_id
    runs = _read(lambda: _search(client, number))
    chosen = _chosen(client, number, condition) if condition else {run.info.run_id for run in runs}
    by_id = {run.info.run_id: run for run in runs}
    rows = [_row(run, by_id) for run in runs if run.info.run_id in chosen and _is_scored(run)]
    if not rows:
        which = f"of the {len(chosen)} that match {condition!r}" if condition else f"of its {len(runs)} runs"
        raise InputError(f"experiment {experiment!r}: none {which} is finished and has a FID; `dvc repro` makes one")
    return pd.DataFrame(rows)


def find_training(experiment: str, key: str) -> "Run":
    """Find the run of a training, which may be going on.

    Args:
        experiment: name of the MLflow experiment.
        key: identity of the training; see `lineage.stage_key`.

    Raises:
        InputError: no store, or no such run.
        RunError: the store cannot be read.
    """
    client = _open()
    found = _read(lambda: find_experiment(client, experiment))
    runs = _read(lambda: _search(client, found.experiment_id, f"tags.`{KEY}` = '{key}'")) if found else []
    training = run_of_training(runs)
    if training is None:
        raise InputError(
            f"experiment {experiment!r}: holds no training with these parameters and this code; "
            "`dvc repro train` makes one"
        )
    return training


def curves(run_id: str, names: list[str]) -> pd.DataFrame:
    """Curves of a run that have points at the same steps: one row per step, one column per curve.

    Raises:
        RunError: the store cannot be read.
    """
    client = _open()
    points = _read(lambda: {name: client.get_metric_history(run_id, name) for name in names})
    columns = [pd.Series({point.step: point.value for point in found}, name=name) for name, found in points.items()]
    return pd.concat(columns, axis=1).dropna().sort_index()


def artifact(run_id: str, path: str, folder: Path) -> Path | None:
    """Copy one file of a run's artifacts into a folder; None where the run has no such file."""
    from mlflow import MlflowException

    try:
        return Path(_open().download_artifacts(run_id, path, str(folder)))
    except (MlflowException, OSError):
        return None


def _open() -> "MlflowClient":
    uri, database = location()
    if uri.startswith("sqlite:") and not database.exists():
        raise InputError(f"{database}: no such MLflow store; `dvc repro` makes it, or name one by MLFLOW_TRACKING_URI")
    _read(prepare)
    from mlflow import MlflowClient

    return _read(lambda: MlflowClient(tracking_uri=uri))


def _read(question: Callable[[], T]) -> T:
    """Ask the store.

    Raises:
        RunError: it does not answer.
    """
    try:
        return question()
    except InputError:
        raise
    except Exception as error:
        store = masked(location()[0])
        raise RunError(f"the MLflow store {store} cannot be read ({reason(error)}); try again later") from None


def _search(client: "MlflowClient", experiment_id: str, condition: str = "") -> "list[Run]":
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], condition, max_results=PAGE, page_token=token)
        runs += page
        token = page.token
        if not token:
            return sorted(runs, key=lambda run: run.info.start_time, reverse=True)


def _chosen(client: "MlflowClient", experiment_id: str, condition: str) -> set[str]:
    try:
        return {run.info.run_id for run in _search(client, experiment_id, condition)}
    except Exception as error:  # not the store's fault, which has just answered
        raise InputError(
            f"--filter: MLflow does not understand {condition!r} ({reason(error)}); "
            'an example: \'params.schedule = "cosine" and tags.device LIKE "%H100%"\''
        ) from None


def _is_scored(run: "Run") -> bool:
    return run.info.status == "FINISHED" and f"{run.data.tags.get('extractor')}/fid" in run.data.metrics


def _row(run: "Run", runs: "dict[str, Run]") -> dict[str, object]:
    training = runs.get(run.data.tags.get(PARENT, ""), run)
    inherited = {name: value for name, value in training.data.metrics.items() if name.startswith(OF_TRAINING)}
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    device = {"device": training.data.tags["device"]} if "device" in training.data.tags else {}
    return {
        "run_id": run.info.run_id,
        "training": training.info.run_id,
        "name": run.info.run_name,
        "start_time": pd.Timestamp(run.info.start_time, unit="ms", tz="UTC"),
        "extractor": tags["extractor"],
        **{f"params.{name}": value for name, value in run.data.params.items()},
        **{f"metrics.{name}": value for name, value in (inherited | run.data.metrics).items()},
        **{f"tags.{name}": value for name, value in (device | tags).items()},
    }
