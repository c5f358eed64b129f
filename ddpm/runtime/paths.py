"""Where things are: outputs in this workspace, and what all workspaces of one repository share."""

import os
import unicodedata
from pathlib import Path

from ddpm.runtime.errors import InputError

# One folder deeper than where people keep photographs and weights: DVC deletes all that is in it.
RAW = Path("data/raw/fetched")
WEIGHTS = Path("data/weights/fetched")
PROCESSED = Path("data/processed")
REFERENCE = Path("data/reference")
SAMPLES = Path("data/samples")
MODELS = Path("models")
SHIPPED = Path("shipped")  # a small model for those who have trained none; not in ddpm/, which MLflow copies
REPORTS = Path("reports")


def main_root() -> Path:
    """Absolute root of the main repository, also from inside one of DVC's temporary workspaces.

    `dvc exp run --temp` and `--queue` run in a copy below .dvc/tmp/exps that is deleted afterwards, so whatever
    outlives an experiment (the MLflow store, downloads) and whatever lies outside the repository (a folder of
    images given by a relative path) is found from here.
    """
    dvc_root = os.environ.get("DVC_ROOT")
    if dvc_root and (Path(dvc_root) / ".dvc").is_dir():
        return Path(dvc_root).resolve()
    cwd = Path.cwd().resolve()
    for parent in (cwd, *cwd.parents):
        if parent.match(".dvc/tmp/exps"):
            return parent.parents[2]
    return next((parent for parent in (cwd, *cwd.parents) if (parent / ".dvc").is_dir()), cwd)


def from_main_root(path: str | Path) -> Path:
    """Absolute form of a path given by the user; relative ones start at the main repository's root.

    Raises:
        InputError: it begins with ~ and the name of nobody, or of a user without a home.
    """
    try:
        return _on_disk(main_root() / Path(path).expanduser())
    except RuntimeError:
        who = "this user has no home" if str(path).partition("/")[0] == "~" else "there is no user of that name"
        raise InputError(f"{path}: {who}; write the path in full") from None


def _on_disk(path: Path) -> Path:
    """The path as the disk spells it: accents typed are one letter mostly, and on a disk of macOS two."""
    if path.exists() or path == path.parent:
        return path
    parent, wanted = _on_disk(path.parent), unicodedata.normalize("NFC", path.name)
    try:
        same = [entry for entry in parent.iterdir() if unicodedata.normalize("NFC", entry.name) == wanted]
    except OSError:
        return path
    return same[0] if len(same) == 1 else path
