"""Checksums of files."""

import hashlib
from pathlib import Path


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Hash a file's bytes; hexadecimal."""
    with path.open("rb") as stream:
        # Not for security: md5 is what the data set's publishers give.
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
