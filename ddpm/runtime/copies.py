"""Copies of files by their content alone: network shares (CIFS, NFS) may refuse to set permissions and times."""

import shutil
from pathlib import Path


def copy_files(source: Path, target: Path) -> None:
    """Copy a file, or all that is below a folder, replacing what is there.

    Raises:
        OSError: something cannot be read or written.
    """
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)  # also where nothing is in it
    for file in source.rglob("*") if source.is_dir() else [source]:
        if file.is_file():
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
