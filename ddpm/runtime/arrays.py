"""Arrays as files."""

import io
from pathlib import Path

import numpy as np


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file.

    Raises:
        OSError: with its number, such as that of a full disk, which np.save loses on the way.
    """
    content = io.BytesIO()
    np.save(content, array)
    path.write_bytes(content.getbuffer())
