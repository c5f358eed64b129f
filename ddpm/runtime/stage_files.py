"""Files that others read: written whole or not at all, and read with a sentence for what may be wrong with them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ddpm.runtime.errors import InputError


def write_whole(path: Path, text: str) -> None:
    """Write all of a text or nothing, so that a kill never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def load_array(path: Path, ndim: int, dtype: type, stage: str) -> np.ndarray:
    """Read a .npy file as a read-only memory map.

    Args:
        path: the file.
        ndim: its number of dimensions.
        dtype: its type.
        stage: the stage that wrote it.

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run `dvc repro --force {stage}`") from None
    if not isinstance(array, np.ndarray) or array.ndim != ndim or array.dtype != dtype:
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "an archive of arrays"
        raise InputError(
            f"{path}: found {found}, not {ndim} dimensions of {dtype.__name__}; run `dvc repro --force {stage}`"
        )
    return array


def load_json(path: Path, keys: set[str], stage: str) -> dict[str, Any]:
    """Read a JSON file that holds at least these keys.

    Raises:
        InputError: the file is missing, damaged, or lacks a key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run `dvc repro --force {stage}`") from None
    missing = keys - (content.keys() if isinstance(content, dict) else set())
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; run `dvc repro --force {stage}`")
    return content


def detach(outputs: Iterable[Path]) -> None:
    """Remove outputs that DVC has linked into its cache (`cache.type`), which writing to them would change.

    DVC removes them itself before it runs a stage; a stage that is run by hand finds them.
    """
    for output in outputs:
        for file in [output, *output.rglob("*")]:
            if file.is_symlink() or (file.is_file() and file.stat().st_nlink > 1):
                file.unlink()
