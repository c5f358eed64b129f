"""`make install` with stand-ins for Python, pip and uv, which write down what they were asked to do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

NOTE = '#!/bin/sh\necho "${0##*/} $*" >> "$NOTES"\n'
VENV = '[ "$2" = venv ] && mkdir -p "$3/bin" && cp "$0" "$3/bin/python"\nexit 0\n'


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the Makefile, the lock, and a PATH that has nothing but what the Makefile calls."""
    folder = tmp_path / "a clone" / "bin"
    folder.mkdir(parents=True)
    for name in ("make", "sh", "touch", "mkdir", "cp"):
        (folder / name).symlink_to(str(shutil.which(name)))
    (folder / "python3").write_text(NOTE + VENV)
    (folder / "uv").write_text(NOTE)
    for name in ("python3", "uv"):
        (folder / name).chmod(0o755)
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, folder.parent)
    return folder.parent


def install(clone: Path, *words: str) -> list[str]:
    """Run `make install`; returns all calls but the check of Python's version."""
    notes = clone / "notes"
    environment = {"PATH": str(clone / "bin"), "NOTES": str(notes)}
    done = subprocess.run(
        ["make", "install", *words], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in notes.read_text().splitlines() if not line.startswith("python3 -c")]


def test_pip_installs_the_lock_where_there_is_no_uv(clone: Path) -> None:
    (clone / "bin/uv").unlink()
    venv, pip = install(clone)
    assert venv == "python3 -m venv .venv"
    assert pip.startswith("python -m pip install ") and pip.endswith(" --require-hashes -r requirements.lock")


def test_uv_installs_the_same_lock_into_the_same_place(clone: Path) -> None:
    venv, uv = install(clone)
    assert venv == "python3 -m venv .venv"  # which has the pip that the documentation asks for later
    assert uv == "uv pip install --python .venv/bin/python --quiet --require-hashes -r requirements.lock"
    assert os.access(clone / ".venv/.installed", os.F_OK)


def test_uv_can_be_left_out(clone: Path) -> None:
    assert install(clone, "UV=")[1].startswith("python -m pip install ")


def test_what_is_installed_is_not_installed_again(clone: Path) -> None:
    assert install(clone) == install(clone)
