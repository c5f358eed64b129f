"""Small files that stand for large ones which git LFS has not fetched: `git clone` without it leaves them."""

from pathlib import Path

START = b"version https://git-lfs.github.com/spec/"
REASON = "it is a pointer of git LFS, not the file itself, which `git lfs pull` fetches"


def is_pointer(content: bytes) -> bool:
    """Tell a pointer by its first bytes."""
    return content.startswith(START)


def is_pointer_file(path: Path) -> bool:
    """Tell a pointer from other files; one that cannot be read is none."""
    try:
        with path.open("rb") as stream:
            return is_pointer(stream.read(len(START)))
    except OSError:
        return False
