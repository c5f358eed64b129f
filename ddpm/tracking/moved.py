"""MLflow keeps the absolute place of every artifact in its database; here those of one that was moved are put right.

The artifacts of this project lie in `mlartifacts` beside the database. After the folder of both was renamed or copied,
or the database was taken to another machine, its paths still lead to where it was: artifacts of earlier runs are not
found, and those of new runs would be written there, also into the original of a copy.
"""

import os
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ddpm.runtime.copies import copy_files

FOLDERS = ("mlartifacts", "mlruns")  # ours, and MLflow's own default
# The place of an experiment (ours have no number) or of a run.
ARTIFACTS = re.compile(rf"(.*)/(?:{'|'.join(FOLDERS)})(?:/[0-9]+)?(?:/[0-9a-f]{{32}}/artifacts)?", re.DOTALL)
# Where MLflow keeps paths: table, column, and the table's key.
PLACES = (
    ("experiments", "artifact_location", "experiment_id"),
    ("runs", "artifact_uri", "run_uuid"),
    ("logged_models", "artifact_location", "model_id"),
    ("model_versions", "source", "rowid"),
    ("model_versions", "storage_location", "rowid"),
    ("trace_tags", "value", "rowid"),
)


def bring_home(database: Path) -> None:
    """Let the paths in a database of MLflow lead to the folder that it lies in.

    Only paths into the folder in which it lay before are changed: an experiment that somebody gave another place keeps
    it. The artifacts of a run that lie only in the old folder, because they were not copied, are still found there.

    Raises:
        sqlite3.Error: the database cannot be read or written.
    """
    home = database.parent.resolve()
    with closing(sqlite3.connect(database)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"experiments", "runs"} <= tables or not os.access(database, os.W_OK):
            return
        runs = _paths(connection, "SELECT artifact_uri FROM runs")
        # MLflow's own first experiment is made with the database.
        first = _paths(connection, "SELECT artifact_location FROM experiments WHERE experiment_id = 0")
        found = {Path(match[1]) for path in [*first, *runs] if (match := ARTIFACTS.fullmatch(str(path)))}
        roots = [root for root in found if _was_home(root, home, database.name, runs)]
        if roots:
            with connection:  # one transaction
                for table, column, key in PLACES:
                    _correct(connection, table, column, key, roots, home)


def adopt(database: Path, run_id: str) -> None:
    """Copy the artifacts of a run that is about to be written to from an old folder to where its experiment has them.

    Raises:
        LookupError: there is no such run.
        OSError: they cannot be copied.
        sqlite3.Error: the database cannot be read or written.
    """
    with closing(sqlite3.connect(database)) as connection, connection:
        question = "SELECT artifact_uri, artifact_location FROM runs JOIN experiments USING (experiment_id)"
        row = connection.execute(f"{question} WHERE run_uuid = ?", (run_id,)).fetchone()
        if row is None:
            raise LookupError("the database was replaced by another one, which does not hold this run")
        place, location = row
        old, folder = local_path(place), local_path(location)
        if folder != database.parent.resolve() / FOLDERS[0] or not old or old.is_relative_to(folder):
            return
        new = folder / run_id / "artifacts"
        copy_files(old, new)
        connection.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (new.as_uri(), run_id))


def local_path(place: str | None) -> Path | None:
    """The folder that a path or a file: URI names; None for one of a server, or for a relative one."""
    path = unquote(urlsplit(place).path) if place and place.startswith("file:") else place or ""
    return Path(path) if path.startswith("/") else None


def _paths(connection: sqlite3.Connection, question: str) -> list[Path]:
    return [path for (place,) in connection.execute(question) if (path := local_path(place))]


def _was_home(root: Path, home: Path, name: str, runs: Iterable[Path]) -> bool:
    """Whether the database lay there before: nothing is left, or the original is, or its artifacts came along."""
    if os.path.realpath(root) == str(home):
        return False
    if not any(_exists(root / folder) for folder in FOLDERS) or _exists(root / name):
        return True
    return any(path.is_relative_to(root) and (home / path.relative_to(root)).exists() for path in runs)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # somebody else's folder, into which this user may not look
        return False


def _correct(
    connection: sqlite3.Connection, table: str, column: str, key: str, roots: Iterable[Path], home: Path
) -> None:
    if column not in {name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}:
        return  # of another version of MLflow
    for identity, place in connection.execute(f"SELECT {key}, {column} FROM {table}").fetchall():
        path = local_path(place)
        for root in roots:
            if not path or not any(path.is_relative_to(root / folder) for folder in FOLDERS):
                continue
            new = home / path.relative_to(root)
            if table == "experiments" or new.exists() or not _exists(path):
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (new.as_uri(), identity))
