"""How long waiting threads spin, as GNU OpenMP itself reports it from a process that starts as users start one."""

import os
import re
import subprocess
import sys

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PyTorch brings GNU OpenMP on Linux alone")
VARIABLES = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}


def reported(folder, *words, **chosen):
    """Run Python with these words in an empty folder; returns what OpenMP reports when torch loads it."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    # A single thread, and one that never reads a limit of cores from elsewhere, so that the default is that of OpenMP.
    environment |= {"PYTHONPATH": str(ROOT), "OMP_DISPLAY_ENV": "verbose", "OMP_NUM_THREADS": "1", **chosen}
    run = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    return dict(re.findall(r"^ *(?:\[host\] )?(\w+) *= *'(.*)'$", run.stderr, re.MULTILINE)), run


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "stages.sample"),  # ends at once, because this is no repository
        ("-m", "ddpm", "sample"),  # because there is no model
    ],
    ids=" ".join,
)
def test_whatever_is_started_lets_threads_spin_briefly(tmp_path, words):
    report, run = reported(tmp_path, *words)
    assert report["GOMP_SPINCOUNT"] == "5000", run.stderr


def test_who_has_chosen_a_number_of_spins_keeps_it(tmp_path):
    report, _ = reported(tmp_path, "-c", "import ddpm, torch", GOMP_SPINCOUNT="7")
    assert report["GOMP_SPINCOUNT"] == "7"


def test_who_has_chosen_how_to_wait_keeps_it(tmp_path):
    """Active threads spin for ages; a number of spins would have overruled that."""
    report, _ = reported(tmp_path, "-c", "import ddpm, torch", OMP_WAIT_POLICY="active")
    assert report["OMP_WAIT_POLICY"].lower() == "active"
    assert int(report["GOMP_SPINCOUNT"]) > 1_000_000


def test_nothing_is_changed_once_torch_is_there(tmp_path):
    report, run = reported(tmp_path, "-c", "import torch, ddpm, os; print(os.environ.get('GOMP_SPINCOUNT'))")
    assert run.stdout == "None\n"
    assert report["GOMP_SPINCOUNT"] != "5000"


def test_processes_that_are_started_inherit_it(tmp_path):
    start = "import ddpm, subprocess, sys; subprocess.run([sys.executable, '-c', 'import torch'])"
    report, run = reported(tmp_path, "-c", start)
    assert report["GOMP_SPINCOUNT"] == "5000", run.stderr
