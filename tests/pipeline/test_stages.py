"""The whole pipeline through DVC, on a tiny scale, in temporary repositories; in the order in which a user works."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

from tests.support.tiny_repository import (
    call,
    environment,
    runs,
    stages_run,
)


@pytest.mark.parametrize("stage", ["explore", "train", "sample", "fid", "report"])
def test_a_stage_run_by_hand_too_early_says_what_to_do(fresh, stage):
    output = call(fresh, "python", "-m", f"stages.{stage}", check=False)
    assert output.startswith("error: ") and "`dvc repro" in output and output.count("\n") == 1


def test_a_python_without_the_packages_is_named(fresh):
    done = subprocess.run(  # -S: without site-packages
        [sys.executable, "-S", "-m", "stages.download"], cwd=fresh, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {sys.executable} lacks pydantic; run `source .venv/bin/activate` first\n"


def test_dvc_called_by_path_with_another_python_on_the_path_says_what_to_do(fresh, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dvc"), "repro"],
        cwd=fresh,
        env=environment() | {"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "lacks pydantic; run `source .venv/bin/activate` first" in done.stderr
    assert "exited with 2" in done.stderr and "Traceback" not in done.stderr


def test_a_bad_parameter_ends_in_one_sentence_before_any_work(fresh):
    params = fresh / "params.yaml"
    good = params.read_text()
    params.write_text(good.replace("schedule: linear", "schedule: bogus"))
    output = call(fresh, "dvc", "repro", check=False)
    params.write_text(good)
    assert "params.yaml: schedule: found 'bogus', choose 'linear', 'cosine' or 'sigmoid'" in output
    assert "exited with 2" in output and "Traceback" not in output
    assert stages_run(output) == ["download"] and not (fresh / "data/raw/fetched").exists()


def test_the_model_on_disk_is_the_average_that_training_reports(reproduced):
    """The last held-out loss of the curve is that of the saved weights, and of no others."""
    from ddpm import load_model
    from ddpm.config import load_config
    from ddpm.data.dataset import load_packed
    from ddpm.training.setup import prepare

    config = load_config(reproduced / "params.yaml")
    training = prepare(config, load_packed(reproduced / "data/processed"), torch.device("cpu"))
    training.ema.model.load_state_dict(load_model(reproduced / "models", device="cpu").unet.state_dict())
    reported = pd.read_csv(reproduced / "reports/curves/heldout.csv")["loss"].iloc[-1]
    assert training.heldout_loss() == pytest.approx(reported, rel=1e-4)
    training.ema.model.load_state_dict(training.unet.state_dict())
    assert training.heldout_loss() != pytest.approx(reported, rel=1e-4)


def test_all_outputs_are_there(reproduced):
    samples = np.load(reproduced / "data/samples/samples.npy")
    assert samples.shape == (8, 16, 16, 3) and samples.dtype == np.uint8
    scores = json.loads((reproduced / "reports/fid.json").read_text())
    assert list(scores) == ["efficientnet_lite0"] and scores["efficientnet_lite0"]["fid"] > 0
    report = (reproduced / "reports/fid.md").read_text()
    assert (
        f"{scores['efficientnet_lite0']['fid']:.2f}" in report and "cannot be compared with any published FID" in report
    )
    pictures = [line.split("](")[1].split(")")[0] for line in report.splitlines() if line.startswith("![")]
    assert (reproduced / "reports/fid.html").read_text().count("data:image/png;base64,") == len(pictures)
    assert len(pictures) == 6 and all((reproduced / "reports" / name).stat().st_size > 500 for name in pictures)


def test_git_sees_only_the_lock_and_the_metrics(reproduced):
    assert call(reproduced, "git", "status", "--short").split() == ["??", "dvc.lock", "??", "reports/fid.json"]


def test_no_checkpoint_is_left(reproduced):
    assert list((reproduced / ".ckpt").iterdir()) == []


def test_nothing_is_done_twice(reproduced):
    assert stages_run(call(reproduced, "dvc", "repro")) == []


def test_a_batch_that_is_too_small_for_all_processes_is_refused(reproduced):
    params = reproduced / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("batch_size: 8\n  lr", "batch_size: 1\n  lr"))
    command, settings = [sys.executable, "-m", "stages.train"], environment() | {"DDPM_PROCESSES": "2"}
    done = subprocess.run(command, cwd=reproduced, env=settings, capture_output=True, text=True, check=False)
    params.write_text(before)
    sentence = "error: train.batch_size: 1 images cannot be shared by 2 processes; raise it, or start fewer\n"
    assert (done.returncode, done.stderr) == (2, sentence)


def test_one_finished_run_holds_parameters_curves_scores_and_artifacts(reproduced):
    (run,) = runs(reproduced)
    assert run.info.status == "FINISHED" and run.info.run_name == "linear · 2 epochs · ddim 3"
    assert {name: run.data.params[name] for name in ("schedule", "epochs", "sample.steps")} == {
        "schedule": "linear",
        "epochs": "2",
        "sample.steps": "3",
    }
    scores = json.loads((reproduced / "reports/fid.json").read_text())["efficientnet_lite0"]
    assert {name: run.data.metrics[f"efficientnet_lite0/{name}"] for name in scores} == scores
    tags = run.data.tags
    assert tags["git.commit"] == call(reproduced, "git", "rev-parse", "HEAD").strip()
    assert tags["data.sha256"] == hashlib.sha256((reproduced / "data/processed/images.npy").read_bytes()).hexdigest()
    assert tags["device"].startswith("CPU") and tags["version.torch"].startswith("2.")
    client = MlflowClient(tracking_uri=f"sqlite:///{reproduced / 'mlflow.db'}")
    names = ("loss", "learning_rate", "grad_norm", "images_per_second")
    for curve in ("heldout/loss", *(f"train/{name}" for name in names)):
        assert len(client.get_metric_history(run.info.run_id, curve)) >= 2, curve
    artifacts = reproduced / "mlartifacts" / run.info.run_id / "artifacts"
    assert {"report", "images"} <= {path.name for path in artifacts.iterdir()}
    (model,) = client.search_logged_models([run.info.experiment_id])
    folder = reproduced / "mlartifacts/models" / model.model_id / "artifacts"
    assert (folder / "model.safetensors").read_bytes() == (reproduced / "models/model.safetensors").read_bytes()
    assert (folder / "MLmodel").exists() and model.source_run_id == run.info.run_id
    assert {metric.key: metric.value for metric in model.metrics} == {
        name: value for name, value in run.data.metrics.items() if name.startswith("efficientnet_lite0/")
    }
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.name == "synthetic" and tags["data.sha256"].startswith(data.dataset.digest)
    assert (artifacts / "report/fid.md").exists() and (artifacts / "report/samples/grid.png").exists()
    assert (artifacts / "report/explore/classes.png").exists() and (artifacts / "report/explore.html").exists()
    assert (artifacts / "report/fid.html").read_bytes() == (reproduced / "reports/fid.html").read_bytes()


def test_an_exported_model_carries_its_scores(reproduced, tmp_path):
    call(reproduced, "python", "-m", "ddpm", "export", str(tmp_path / "exported"))
    scores = json.loads((reproduced / "reports/fid.json").read_text())["efficientnet_lite0"]
    card = (tmp_path / "exported/README.md").read_text()
    assert f"| FID (lower is better) | **{scores['fid']:.2f}** | {scores['fid_low']:.2f} to" in card
    assert "From 8 samples (sampler ddim, steps 3," in card


def test_the_report_leads_to_its_run_and_so_to_its_commit(reproduced):
    report = (reproduced / "reports/fid.md").read_text()
    (run,) = runs(reproduced)
    client = MlflowClient(tracking_uri=f"sqlite:///{reproduced / 'mlflow.db'}")
    search = report.split("```")[1].strip()
    for query in (search, "params.schedule = 'linear' and params.epochs = '2' and params.`sample.sampler` = 'ddim'"):
        (found,) = client.search_runs([run.info.experiment_id], query)
        assert found.info.run_id == run.info.run_id
    assert run.data.tags["git.commit"] == call(reproduced, "git", "rev-parse", "HEAD").strip()
    assert run.data.tags["git.modified"] == "false"
    assert run.data.tags["data.sha256"] in report


def test_the_run_tells_how_long_each_stage_took(reproduced):
    (run,) = runs(reproduced)
    stages = ("download", "preprocess", "explore", "reference", "train", "sample", "fid")
    seconds = {stage: run.data.metrics[f"seconds/{stage}"] for stage in stages}
    assert min(seconds.values()) >= 0 and 0.1 < seconds["train"] < 600


def test_a_second_cold_run_gives_the_same_bytes_without_mlflow_too(reproduced, tmp_path):
    """DVC's lock file holds the checksum of every output; so it is the proof."""
    root = tmp_path / "second"
    call(tmp_path, "git", "clone", "-q", str(reproduced), str(root))
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("enabled: true", "enabled: false"))
    call(root, "dvc", "repro")
    assert (root / "dvc.lock").read_bytes() == (reproduced / "dvc.lock").read_bytes()
    assert (root / "reports/fid.json").read_bytes() == (reproduced / "reports/fid.json").read_bytes()
    assert not (root / "mlflow.db").exists()


def test_a_colleague_pulls_the_results_and_runs_nothing(reproduced, tmp_path):
    clone, storage = tmp_path / "clone", str(tmp_path / "storage")
    call(tmp_path, "git", "clone", "-q", str(reproduced), str(clone))
    for name in ("dvc.lock", "reports/fid.json"):  # what git would bring, once committed
        shutil.copy(reproduced / name, clone / name)
    for root, command in ((reproduced, "push"), (clone, "pull")):
        call(root, "dvc", "remote", "add", "--local", "-d", "storage", storage)
        call(root, "dvc", command)
    assert stages_run(call(clone, "dvc", "repro")) == []
    assert (clone / "reports/fid.md").read_bytes() == (reproduced / "reports/fid.md").read_bytes()


def test_an_experiment_reruns_only_what_depends_on_it(reproduced):
    output = call(reproduced, "dvc", "exp", "run", "-S", "schedule=cosine")
    assert stages_run(output) == ["train", "sample", "fid", "report"]
    assert [run.data.params["schedule"] for run in runs(reproduced)] == ["linear", "cosine"]


def test_a_temporary_workspace_reports_to_the_main_store(reproduced):
    """`--temp` works in a copy that is deleted afterwards; another sampler must not train again."""
    output = call(reproduced, "dvc", "exp", "run", "--temp", "-S", "sample.sampler=ddpm")
    assert stages_run(output) == ["sample", "fid", "report"]
    *_, training, scoring = runs(reproduced)
    assert scoring.data.tags["mlflow.parentRunId"] == training.info.run_id
    assert scoring.info.status == "FINISHED" and "efficientnet_lite0/fid" in scoring.data.metrics
    assert not list((reproduced / ".dvc/tmp/exps/standalone").glob("tmp*"))


def test_inception_scores_come_from_the_weights_file(reproduced, inception_weights):
    """Random weights in the real file format, laid where `download` puts the real ones, which a test cannot fetch."""
    params = reproduced / "params.yaml"
    params.write_text(params.read_text().replace("extractor: efficientnet_lite0", "extractor: inception"))
    (reproduced / "data/weights/fetched/weights.json").write_text(
        json.dumps({"extractor": "inception", "file": inception_weights.name, "sha256": "", "origin": "random"})
    )
    shutil.copy(inception_weights, reproduced / "data/weights/fetched")
    assert "holds features of efficientnet_lite0" in call(reproduced, "python", "-m", "stages.fid", check=False)
    for stage in ("reference", "fid", "report"):
        call(reproduced, "python", "-m", f"stages.{stage}")
    scores = json.loads((reproduced / "reports/fid.json").read_text())
    assert list(scores) == ["inception"] and scores["inception"]["fid"] > 0
    assert "can be compared with published ones" in (reproduced / "reports/fid.md").read_text()
