"""The notebook: its cells run, are short, and hold the outputs that a reader without Jupyter sees."""

import re
import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.support.notebook import NOTEBOOK, read
from tests.support.tiny_repository import environment

SIZES = "EPOCHS, IMAGES, SAMPLES = "
# Jupyter's part: `display` of pictures that exist, and no more.
DISPLAY = """
import sys, types
module = types.ModuleType("IPython.display")
module.Image = lambda path, width=None: path.read_bytes()
module.display = lambda content: print("picture", len(content))
sys.modules["IPython.display"] = module
"""


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    return read()["cells"]


def code_of(cells: list[dict]) -> list[str]:
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_cells_are_short_and_the_whole_is_small(cells):
    assert all(code.count("\n") < 15 for code in code_of(cells))
    assert NOTEBOOK.stat().st_size < 1.5e6


def test_it_was_executed_from_top_to_bottom_and_shows_no_fault_and_no_folder(cells):
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert all(output.get("name", "stdout") == "stdout" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 10
    texts = [text for output in outputs for key, text in output.get("data", {"text": output.get("text")}).items()
             if key != "image/png"]  # fmt: skip
    assert not re.search(r"/(home|root|work|tmp|Users)/", str(texts))


def test_its_code_runs_on_a_few_synthetic_flowers(cells, tmp_path):
    code = "\n".join(code_of(cells))
    assert code.count(SIZES) == 1
    small = re.sub(f"{SIZES}.*", f"{SIZES}1, 24, 8", code)
    script = tmp_path / "cells.py"
    script.write_text(DISPLAY + small, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT / "docs", env=environment() | {"TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("picture") >= 10
