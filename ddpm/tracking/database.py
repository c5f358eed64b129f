"""The database of MLflow: where it is, that it can be opened, and that its paths lead to where it is now."""

import os
import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ddpm.runtime.errors import InputError
from ddpm.runtime.locks import lock
from ddpm.runtime.paths import from_main_root
from ddpm.tracking.moved import FOLDERS, bring_home

if TYPE_CHECKING:  # importing MLflow takes seconds, and half of the stages do not track
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # MLflow's own 7 hold every call to a dead server for four minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds; with one retry, a silent server costs a dozen
    "MLFLOW_DISABLE_TELEMETRY": "true",  # no stage but download uses the network
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # the terminal shows our lines, not migrations and tracebacks of the database
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a bar per file, and the files are small
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
JOURNALS = ("-journal", "-wal", "-shm")  # what SQLite keeps beside a database


class StoreError(InputError):
    """The store can be opened, but not written to before somebody has done something about it."""


def prepare() -> None:
    """Import MLflow and create a missing database, which may take seconds and yet is no fault of the store.

    Raises:
        InputError: MLFLOW_TRACKING_URI is no address.
        OSError, sqlite3.Error: the database cannot be created or read.
    """
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    import mlflow  # noqa: F401

    uri, database = location()
    if not uri.startswith("sqlite:"):
        return
    if not database.exists():
        with locked(database):
            if not database.exists():
                _create(database)
    with closing(
        sqlite3.connect(database)
    ) as connection:  # MLflow would try for long, and then not report what was wrong
        connection.execute("PRAGMA schema_version")
        check_version(connection, database)
    with locked(database) if os.access(database, os.W_OK) else nullcontext():
        bring_home(database)


def find_experiment(client: "MlflowClient", name: str) -> "Experiment | None":
    """An experiment by its name; None where there is none of that name.

    Raises:
        StoreError: it was deleted, which MLflow can undo; until then, it takes no run.
    """
    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == "deleted":
        raise StoreError(deleted(name, found.experiment_id))
    return found


def deleted(name: str, number: str) -> str:
    """Report that an experiment was deleted, and how to restore it."""
    store = f"MLFLOW_TRACKING_URI={shlex.quote(masked(location()[0]))}"
    remedy = f"`{store} mlflow experiments restore --experiment-id {number}` brings it back with its runs"
    return f"the MLflow experiment {name!r} was deleted; {remedy}, or set tracking.experiment to another name"


def location() -> tuple[str, Path]:
    """URI of the store, and its SQLite file (for a server: the place of the default one).

    Raises:
        InputError: MLFLOW_TRACKING_URI is no address.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith("sqlite:///") and "?" not in uri.rpartition("/")[2]:
        database = _file(uri.removeprefix("sqlite:///"))
        return _address(database), database
    if uri.startswith("file:") or (uri.startswith((".", "/", "~")) and "://" not in uri):
        raise InputError(
            f"MLFLOW_TRACKING_URI: found {uri!r}, a folder of runs as older versions of MLflow wrote it; "
            "`mlflow migrate-filestore` makes a database of it, which sqlite:///FILE names"
        )
    if uri.startswith("sqlite:") or "://" not in uri:
        raise InputError(f"MLFLOW_TRACKING_URI: found {uri!r}, expected http://HOST:PORT or sqlite:///FILE")
    return uri, from_main_root("mlflow.db")


def _file(text: str) -> Path:
    """The file that an address names; % is read as in addresses, unless a file or folder of that very name exists."""
    decoded, literal = from_main_root(unquote(text)), from_main_root(text)
    exists = next((path for path in (decoded, literal) if path.exists()), None)
    return exists or (literal if literal.parent.is_dir() else decoded)


def _address(database: Path) -> str:
    """The address by which SQLAlchemy opens a SQLite file, whatever its name.

    Where a name must be escaped, an address from the working directory often need not be, and MLflow would create the
    folder that an escaped one seems to name.
    """
    from sqlalchemy.engine import URL, make_url

    for path in (str(database), os.path.relpath(database)):
        if make_url(f"sqlite:///{path}").database == path:
            return f"sqlite:///{path}"
    return URL.create("sqlite", database=str(database)).render_as_string()


def masked(text: str) -> str:
    """A text without the user and password of the addresses in it, for logs that others read."""
    return re.sub(r"://[^/@\s]*@", "://", text)


def check_version(connection: sqlite3.Connection, database: Path) -> None:
    """Refuse a database of another version of MLflow, which would refuse it as well, or migrate it unasked.

    Raises:
        StoreError: with what to do.
        sqlite3.Error: it cannot be read.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
        return
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(db_url=""))  # type: ignore[no-untyped-call]
    found = {version for (version,) in connection.execute("SELECT version_num FROM alembic_version")}
    if not found or found == set(scripts.get_heads()):
        return
    try:
        scripts.get_revisions(tuple(found))
    except CommandError:
        raise StoreError(
            f"{database} was written by a newer MLflow than this one; install that, or name another store "
            "by MLFLOW_TRACKING_URI"
        ) from None
    raise StoreError(
        f"{database} was written by an older MLflow than this one; keep a copy of it, and bring it up to "
        f"date: `mlflow db upgrade {shlex.quote(_address(database))}`"
    )


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold back other processes that want the same."""
    path = database.with_name(f"{database.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        lock(file)
        yield


def artifact_root(database: Path) -> str:
    """The place of all artifacts, as a URI."""
    return (database.parent.resolve() / FOLDERS[0]).as_uri()


def _create(database: Path) -> None:
    """Create a SQLite store aside and rename it: one whose creation was killed half-way stays broken for ever."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    aside = database.with_name(f"{database.name}.init")
    # Of a creation that was killed; and of a database that was deleted, whose journal SQLite would play back. By their
    # exact names: whoever began anew may have kept the old one beside it, as mlflow.db-old.
    aside.unlink(missing_ok=True)
    for path, suffix in product((aside, database), JOURNALS):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    SqlAlchemyStore(_address(aside), artifact_root(database)).engine.dispose()  # type: ignore[no-untyped-call]
    with closing(sqlite3.connect(aside)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # parallel experiments wait less for each other
    aside.rename(database)
