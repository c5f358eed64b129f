"""The whole pipeline through DVC, on a tiny scale, in temporary repositories; in the order in which a user works."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

ROOT = Path(__file__).resolve().parent.parent

# What only runs, checks or records the stages; see the head of dvc.yaml.
NO_DEPS = {"ddpm", *(f"ddpm.{name}" for name in ("config", "errors", "lineage", "paths", "progress", "tracking"))}
PREVIEW = {"ddpm.model", "ddpm.samplers", "ddpm.pictures"}

TINY = {
    "schedule": "linear",
    "epochs": 2,
    "device": "cpu",
    "data": {"source": "synthetic", "image_size": 16, "synthetic": {"count": 24, "classes": 3, "seed": 0}},
    "model": {"channels": 8, "channel_mults": [1, 2], "blocks": 1, "attention": [8], "head_channels": 8},
    "train": {"batch_size": 8, "log_every": 2, "warmup_steps": 1},
    "sample": {"n": 8, "steps": 3, "batch_size": 8},
    "fid": {"extractor": "efficientnet_lite0", "batch_size": 8},
    "tracking": {"preview_every": 1},
}


def merge(base: dict, changes: dict) -> dict:
    return base | {key: merge(base[key], value) if isinstance(value, dict) else value for key, value in changes.items()}


def call(root: Path, *command: str, check: bool = True) -> str:
    """Run a command in the repository and return all that it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_"))}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def runs(root: Path) -> list:
    """All MLflow runs of the repository's store, oldest first."""
    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("flowers-ddpm")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with this working tree as its only commit, and the tiny parameters."""
    root = tmp_path_factory.mktemp("pipeline") / "repository"
    listed = call(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes((ROOT / name).read_bytes())
    (root / "dvc.lock").unlink(missing_ok=True)
    params = merge(yaml.safe_load((ROOT / "params.yaml").read_text()), TINY)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    call(root, "git", "init", "-q")
    call(root, "git", "add", "-A")
    call(root, "git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "tiny")
    return root


@pytest.fixture(scope="module")
def reproduced(repository: Path) -> Path:
    """The same repository after the first `dvc repro`."""
    output = call(repository, "dvc", "repro")
    assert stages_run(output) == ["download", "preprocess", "reference", "train", "sample", "fid", "report"]
    return repository


def test_a_bad_parameter_ends_in_one_sentence_before_any_work(repository):
    params = repository / "params.yaml"
    good = params.read_text()
    params.write_text(good.replace("schedule: linear", "schedule: bogus"))
    output = call(repository, "dvc", "repro", check=False)
    params.write_text(good)
    assert "params.yaml: schedule: found 'bogus', choose 'linear', 'cosine' or 'sigmoid'" in output
    assert "exited with 2" in output and "Traceback" not in output
    assert stages_run(output) == ["download"] or stages_run(output) == []


def test_all_outputs_are_there(reproduced):
    samples = np.load(reproduced / "data/samples/samples.npy")
    assert samples.shape == (8, 16, 16, 3) and samples.dtype == np.uint8
    scores = json.loads((reproduced / "reports/fid.json").read_text())
    assert scores["fid_efficientnet_lite0"] > 0 and scores["extractor"] == "efficientnet_lite0" and "fid" not in scores
    report = (reproduced / "reports/fid.md").read_text()
    assert f"{scores['fid_efficientnet_lite0']:.2f}" in report and "cannot be compared with any published FID" in report
    pictures = [line.split("](")[1].split(")")[0] for line in report.splitlines() if line.startswith("![")]
    assert len(pictures) == 5 and all((reproduced / "reports" / name).stat().st_size > 500 for name in pictures)


def test_git_sees_only_the_lock_and_the_metrics(reproduced):
    assert call(reproduced, "git", "status", "--short").split() == ["??", "dvc.lock", "??", "reports/fid.json"]


def test_nothing_is_done_twice(reproduced):
    assert stages_run(call(reproduced, "dvc", "repro")) == []


def test_one_finished_run_holds_parameters_curves_scores_and_artifacts(reproduced):
    (run,) = runs(reproduced)
    assert run.info.status == "FINISHED" and run.info.run_name == "linear · 2 epochs"
    assert {name: run.data.params[name] for name in ("schedule", "epochs", "sample.steps")} == {
        "schedule": "linear",
        "epochs": "2",
        "sample.steps": "3",
    }
    assert run.data.metrics["fid_efficientnet_lite0"] > 0
    client = MlflowClient(tracking_uri=f"sqlite:///{reproduced / 'mlflow.db'}")
    for curve in ("loss", "heldout_loss", "learning_rate", "grad_norm", "images_per_second"):
        assert len(client.get_metric_history(run.info.run_id, curve)) >= 2, curve
    artifacts = reproduced / "mlartifacts" / run.info.run_id / "artifacts"
    assert {"model", "report", "images"} <= {path.name for path in artifacts.iterdir()}
    assert (artifacts / "model/model.safetensors").read_bytes() == (
        reproduced / "models/model.safetensors"
    ).read_bytes()
    assert (artifacts / "report/fid.md").exists() and (artifacts / "report/samples/grid.png").exists()


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
    assert scoring.info.status == "FINISHED" and "fid_efficientnet_lite0" in scoring.data.metrics
    assert not list((reproduced / ".dvc/tmp/exps/standalone").glob("tmp*"))


def test_inception_scores_come_from_the_weights_file_without_a_network(reproduced, inception_weights):
    """Random weights in the real file format, laid where `download` puts the real ones, which a test cannot fetch."""
    params = reproduced / "params.yaml"
    params.write_text(params.read_text().replace("extractor: efficientnet_lite0", "extractor: inception"))
    (reproduced / "data/weights/weights.json").write_text(
        json.dumps({"extractor": "inception", "file": inception_weights.name, "sha256": "", "origin": "random"})
    )
    shutil.copy(inception_weights, reproduced / "data/weights")
    assert "holds features of efficientnet_lite0" in call(reproduced, "python", "-m", "stages.fid", check=False)
    for stage in ("reference", "fid", "report"):
        call(reproduced, "python", "-m", f"stages.{stage}")
    scores = json.loads((reproduced / "reports/fid.json").read_text())
    assert scores["fid"] > 0 and scores["extractor"] == "inception"
    assert "can be compared with published ones" in (reproduced / "reports/fid.md").read_text()


@pytest.mark.parametrize("stage", ["download", "preprocess", "reference", "train", "sample", "fid", "report"])
def test_deps_name_the_modules_that_a_stage_imports(stage):
    code = f"import stages.{stage}, sys; print(*(m for m in sys.modules if m.split('.')[0] == 'ddpm'))"
    imported = set(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()) - NO_DEPS
    if stage == "train":
        imported -= PREVIEW
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    named = {dep.removesuffix(".py").replace("/", ".") for dep in deps if dep.startswith("ddpm/")} - {"ddpm.templates"}
    covered = {module for module in imported if any(f"{module}.".startswith(f"{name}.") for name in named)}
    assert imported - covered == set(), "missing from deps"
    assert {name for name in named if not any(f"{m}.".startswith(f"{name}.") for m in imported)} == set(), "not used"
