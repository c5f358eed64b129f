"""MLflow's store: deleted experiments, other versions, addresses that are none."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

from tests.support.cases.case import Case, Place


def address(uri: str) -> Callable[[Place], None]:
    return lambda place: place.patch.setenv("MLFLOW_TRACKING_URI", uri)


def version(number: str) -> Callable[[Place], None]:
    """A database that says that another version of MLflow wrote it."""

    def prepare(place: Place) -> None:
        with closing(sqlite3.connect(place.root / "mlflow.db")) as connection, connection:
            connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
            connection.execute("INSERT INTO alembic_version VALUES (?)", (number,))

    return prepare


def deleted_experiment(place: Place) -> None:
    """What "Delete" on MLflow's page leaves."""
    from mlflow import MlflowClient

    from ddpm.tracking.database import location, prepare

    prepare()
    client = MlflowClient(location()[0])
    client.delete_experiment(client.create_experiment(place.params["tracking"]["experiment"]))


STORES = [
    Case(
        "no store, for `python -m ddpm compare`",
        lambda place: None,
        "mlflow.db: no such MLflow store; `dvc repro` makes it, or name one by MLFLOW_TRACKING_URI",
        run="ddpm compare",
    ),
    Case(
        "an experiment that was deleted on MLflow's page",
        deleted_experiment,
        (
            "the MLflow experiment 'flowers-ddpm' was deleted; `MLFLOW_TRACKING_URI=sqlite:///mlflow.db mlflow "
            "experiments restore --experiment-id 1` brings it back with its runs, or set tracking.experiment to "
            "another name"
        ),
        run="ddpm compare",
    ),
    Case(
        "a database that an older MLflow wrote",
        version("cfd24bdc0731"),
        (
            "mlflow.db was written by an older MLflow than this one; keep a copy of it, and bring it up to date: "
            "`mlflow db upgrade sqlite:///mlflow.db`"
        ),
        run="ddpm compare",
    ),
    Case(
        "a database that a newer MLflow wrote",
        version("9" * 12),
        (
            "mlflow.db was written by a newer MLflow than this one; install that, or name another store by "
            "MLFLOW_TRACKING_URI"
        ),
        run="ddpm sync",
    ),
    Case(
        "`MLFLOW_TRACKING_URI=./mlruns`, a folder of runs",
        address("./mlruns"),
        (
            "MLFLOW_TRACKING_URI: found './mlruns', a folder of runs as older versions of MLflow wrote it; "
            "`mlflow migrate-filestore` makes a database of it, which sqlite:///FILE names"
        ),
        run="ddpm compare",
    ),
    Case(
        "`MLFLOW_TRACKING_URI=myserver:5000`",
        address("myserver:5000"),
        "MLFLOW_TRACKING_URI: found 'myserver:5000', expected http://HOST:PORT or sqlite:///FILE",
        run="ddpm sync",
    ),
]
