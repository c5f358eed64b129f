"""What a machine with PyTorch alone can do, such as a GPU that was lent: no MLflow, no DVC, nobody to compare with."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from benchmarks import loops
from ddpm.commands.estimate import random_images
from ddpm.config import parse_config
from ddpm.runtime.errors import InputError
from tests.support import ROOT

ABSENT = ("mlflow", "dvc", "pytorch_fid", "diffusers", "accelerate", "denoising_diffusion_pytorch", "torch_fidelity")
# Python imports this first in every process, and then finds no such packages.
HIDE = f"""
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = classmethod(
    lambda cls, name, *where: None if name.split(".")[0] in {ABSENT} else find(name, *where)
)
"""
# In one process, because each of them would import PyTorch anew.
COMMANDS = """
import runpy, sys

if __name__ == "__main__":
    for name, *arguments in (
        ["stages.train"],
        ["benchmarks.speed.train", "speed", "--steps", "1", "--rounds", "1"],
        ["benchmarks.speed.train", "curve", "--steps", "1", "--rounds", "1"],
        ["benchmarks.speed.sampling", "speed", "--steps", "1", "--rounds", "1", "--batch-size", "1"],
        ["benchmarks.speed.doctor", "--steps", "4", "--only", "full network, batch 4"],
        ["ddpm", "doctor"],
    ):
        sys.argv = [name, *arguments]
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            print(name, "ended with", ended.code)
"""


@pytest.fixture
def bare(params, tiny_model, tmp_path):
    """A workspace with tiny parameters and images, and the environment in which the packages are missing."""
    params["model"] = tiny_model.model_dump()
    params["data"] |= {"image_size": 16, "source": "synthetic"}
    params["data"]["synthetic"] |= {"count": 40}
    params["train"] |= {"batch_size": 8, "precision": "fp32"}
    params["sample"] |= {"n": 4, "steps": 2}
    params["tracking"] |= {"enabled": False}
    params |= {"device": "cpu", "epochs": 1}
    for name in ("ddpm", "stages", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    config = parse_config(params)
    random_images(config, 40).save(tmp_path / "data/processed")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/sitecustomize.py").write_text(HIDE)
    (tmp_path / "commands.py").write_text(COMMANDS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    return tmp_path, environment | {"PYTHONPATH": f"{tmp_path / 'hidden'}:{tmp_path}", "OMP_NUM_THREADS": "1"}


def test_a_demo_of_files_that_git_does_not_know_says_so(tmp_path):
    for package in ("demo", "ddpm"):
        shutil.copytree(ROOT / package, tmp_path / package)
    done = subprocess.run([sys.executable, "-m", "demo"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}: git lists no files here, which the demo copies; clone it with git\n"


@pytest.mark.slow
def test_trainings_and_benchmarks_need_neither_mlflow_nor_dvc_nor_the_peers(bare):
    root, environment = bare
    done = subprocess.run(
        [sys.executable, "commands.py"], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0 and "Traceback" not in printed, printed
    results = {file.name: json.loads(file.read_text()) for file in (root / "reports/benchmarks").glob("*.json")}
    assert list(results["train_speed.json"]["contenders"]) == ["ours"]
    assert results["train_speed.json"]["shares"]["tracking_share"] is None
    assert results["train_speed.json"]["machine"]["commit"] == ""
    assert results["train_curve.json"]["rows"]
    assert all(name.startswith("ours: ") for name in results["sampling_speed.json"]["contenders"])
    assert results["doctor.json"]["settings"]["full network, batch 4"]["training"]["images_per_second"] > 0
    for name in ("diffusers", "diffusers_fast", "denoising_diffusion_pytorch"):
        assert f"{name} is left out: " in printed
    assert (root / "models/model.safetensors").exists()
    # The doctor says what is missing, and predicts nonetheless.
    assert "mlflow, dvc, pytorch_fid missing; run `make install`" in printed and "for 4 images in 2 steps" in printed
    assert printed.count(" ended with ") == 1 and "ddpm ended with 1" in printed


def test_a_stage_that_tracks_wants_mlflow_and_says_so(bare):
    root, environment = bare
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["tracking"]["enabled"] = True
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    command = [sys.executable, "-m", "stages.preprocess"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {sys.executable} lacks mlflow; run `source .venv/bin/activate` first\n"


def test_contenders_that_are_not_installed_are_left_out_with_a_line(monkeypatch, capsys):
    monkeypatch.setattr(loops, "lacking", lambda *names: "accelerate" if "accelerate" in names else None)
    assert loops.installed(["ours", "diffusers", "denoising_diffusion_pytorch"]) == [
        "ours",
        "denoising_diffusion_pytorch",
    ]
    assert capsys.readouterr().out == "diffusers is left out: accelerate is not installed\n"
    with pytest.raises(InputError, match="none of these contenders is installed"):
        loops.installed(["diffusers"])
