"""The doors of the rooms of ddpm/, and files that fit on a few screens."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

ROOMS = (
    "runtime",
    "diffusion",
    "data",
    "network",
    "model",
    "evaluation",
    "training",
    "tracking",
    "reporting",
    "commands",
)
DOORS = (*ROOMS, "data.sources", "reporting.comparison")
SOURCES = sorted(path for folder in ("ddpm", "stages", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("room", DOORS)
def test_a_door_names_the_modules_of_its_room(room):
    folder = ROOT / "ddpm" / room.replace(".", "/")
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in folder.glob("*/__init__.py")}
    door = importlib.import_module(f"ddpm.{room}")
    assert door.__all__ == sorted(modules | folders)
    assert door.__doc__ and "know" in door.__doc__  # nothing of ...


def test_opening_all_doors_imports_no_module_behind_them():
    doors = ", ".join(f"ddpm.{room}" for room in DOORS)
    code = f"import {doors}, sys; print('torch' in sys.modules, *sorted(m for m in sys.modules if 'ddpm.' in m))"
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert printed == [
        "False",
        *sorted([*(f"ddpm.{room}" for room in DOORS), "ddpm.runtime.threads"]),
    ]  # of ddpm itself


def test_at_most_four_modules_lie_outside_the_rooms():
    assert len(list((ROOT / "ddpm").glob("*.py"))) <= 4


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_has_more_than_300_lines(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_no_test_imports_another_test():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [name.name for name in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            parts = {part for name in (module, *names) for part in name.split(".")}
            assert not any(part.startswith("test_") for part in parts), path
