"""What a command imports before it answers: each of these packages would cost it a tenth of a second, or seconds."""

import subprocess
import sys

from tests.support import ROOT

HEAVY = ("torch", "torch._dynamo", "numpy", "pandas", "PIL", "mlflow", "matplotlib", "ruamel", "ddpm.config")

IMPORTED = f"""
import runpy, sys
try:
    runpy.run_module("ddpm", run_name="__main__")
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


def imported_by(*words: str) -> set[str]:
    """The heavy ones of the modules that `python -m ddpm` has imported when it ends."""
    command = [sys.executable, "-c", IMPORTED, *words]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return set(eval(done.stderr.splitlines()[-1]))


def test_help_imports_nothing_heavy():
    assert imported_by("--help") == imported_by("sample", "--help") == set()


def test_a_first_picture_imports_no_compiler(tmp_path):
    """The shipped model has classes, whose embedding once imported TorchDynamo, which took longer than all else."""
    found = imported_by("sample", "--n", "1", "--steps", "1", "--model", "shipped", "--out", str(tmp_path / "a.png"))
    assert "torch" in found and found.isdisjoint({"torch._dynamo", "mlflow", "matplotlib"})
