"""The model in MLflow: a pyfunc that generates, from Python and over HTTP."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowException
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from ddpm import load_model
from ddpm.model.model_file import CONFIG_FILE, WEIGHTS_FILE
from ddpm.tracking import runs as tracking
from ddpm.tracking.served import REQUIREMENTS
from tests.support import ROOT
from tests.support.exported import CLASSES, write_model
from tests.support.tiny_repository import wait_for
from tests.support.tracked import TRAIN, runs


@pytest.fixture
def logged(tracked, repository, tmp_path, monkeypatch):
    """A model folder, and the run that it was logged to."""
    folder = write_model(tmp_path / "models")
    with tracking.training_run(tracked, TRAIN) as tracker:
        tracker.model(folder, tmp_path)
    (run,) = runs(repository, tracked)
    monkeypatch.setattr(sys, "path", [*sys.path])  # to which MLflow adds the model's code
    mlflow.set_tracking_uri(f"sqlite:///{repository / 'mlflow.db'}")
    yield folder, run.info.run_id
    mlflow.set_tracking_uri(None)


# Generates where some packages cannot be imported.
GENERATE = """
import sys
folder, *missing = sys.argv[1:]
sys.modules |= dict.fromkeys(missing)
import pandas as pd
from ddpm.tracking.pyfunc import _load_pyfunc
_load_pyfunc(folder).predict(pd.DataFrame([{"n": 1, "steps": 2}]))
"""


def required(*names: str) -> set[str]:
    """Distributions that come with these, as their metadata have it."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        with suppress(PackageNotFoundError):
            waiting += map(Requirement, requires(name) or [])
            found.add(name)
    return found


def test_a_model_generates_where_only_its_requirements_are_installed(tmp_path):
    """As in an environment that MLflow makes for it."""
    there = required(*REQUIREMENTS, "mlflow")
    packages = packages_distributions().items()
    missing = [top for top, names in packages if there.isdisjoint(map(canonicalize_name, names)) and top != "ddpm"]
    assert {"torchvision", "dvc", "tqdm"} <= set(missing)
    command = [sys.executable, "-c", GENERATE, write_model(tmp_path / "models"), *missing]
    subprocess.run(command, cwd=ROOT, check=True)


def pixels(png):
    return np.array(Image.open(io.BytesIO(base64.b64decode(png))))


def test_the_logged_model_generates_our_images(logged, tmp_path):
    folder, run_id = logged
    served = mlflow.pyfunc.load_model(f"runs:/{run_id}/model", dst_path=str(tmp_path))
    (first, second) = served.predict(pd.DataFrame([{"n": 2, "seed": 0, "steps": 5}, {"n": 1, "seed": 3, "steps": 5}]))
    ours = load_model(folder, device="cpu")
    assert np.array_equal([pixels(png) for png in first], ours.sample(2, steps=5, seed=0))
    assert np.array_equal([pixels(png) for png in second], ours.sample(1, steps=5, seed=3))
    (third,) = served.predict(pd.DataFrame([{"n": 1, "sampler": "ddpm", "steps": 5}]))
    assert np.array_equal([pixels(png) for png in third], ours.sample(1, steps=5, sampler="ddpm"))


def test_a_conditional_model_takes_class_and_guidance(tracked, repository, tmp_path, monkeypatch):
    folder = write_model(tmp_path / "models", changes={"conditional": True})
    with tracking.training_run(tracked, TRAIN) as tracker:
        tracker.model(folder, tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    run_id = runs(repository, tracked)[0].info.run_id
    mlflow.set_tracking_uri(f"sqlite:///{repository / 'mlflow.db'}")
    try:
        served = mlflow.pyfunc.load_model(f"runs:/{run_id}/model", dst_path=str(tmp_path))
    finally:
        mlflow.set_tracking_uri(None)
    wishes = pd.DataFrame([{"n": 2, "steps": 3, "class": CLASSES[1], "guidance": 2, "spacing": "uniform"}])
    (pictures,) = served.predict(wishes)
    ours = load_model(folder, device="cpu").sample(2, steps=3, label=CLASSES[1], guidance=2, spacing="uniform")
    assert np.array_equal([pixels(png) for png in pictures], ours)
    rows = pd.DataFrame([{"n": 1, "steps": 3, "class": CLASSES[1], "guidance": 2.0}, {"n": 1, "steps": 3}])
    (_, (second,)) = served.predict(rows)  # what one row alone names is missing in the other
    assert np.array_equal(pixels(second), load_model(folder, device="cpu").sample(1, steps=3)[0])
    with pytest.raises(MlflowException, match="guidance: found 'much', expected a number"):
        served.predict(pd.DataFrame([{"n": 1, "guidance": "much"}]))


@pytest.mark.parametrize("wish", [{"n": 0}, {"n": 257}, {"n": 1, "steps": 1001}, {"n": 1, "sampler": "euler"}])
def test_a_wish_that_cannot_be_fulfilled_is_refused_by_name(logged, wish, tmp_path):
    *_, name = wish
    with pytest.raises(MlflowException, match=f"{name}: found .*, choose ") as caught:
        mlflow.pyfunc.load_model(f"runs:/{logged[1]}/model", dst_path=str(tmp_path)).predict(pd.DataFrame([wish]))
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_the_artifact_is_a_model_folder_without_pickles(logged, repository, tmp_path):
    folder, run_id = logged
    artifact = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/model", dst_path=str(tmp_path)))
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        assert (artifact / name).read_bytes() == (folder / name).read_bytes()
    files = [path for path in artifact.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".py", ".j2", ".json", ".yaml", ".txt", ".safetensors", ""}
    requirements = (artifact / "requirements.txt").read_text()
    assert f"numpy=={np.__version__}" in requirements and "+" not in requirements
    assert (artifact / "code/ddpm/network/unet.py").exists()


def test_a_model_that_cannot_be_packed_is_logged_plainly(tracked, repository, tmp_path, monkeypatch, capsys):
    def fail(folder):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(tracking, "write_serving_files", fail)
    with tracking.training_run(tracked, TRAIN) as tracker:
        tracker.model(write_model(tmp_path / "models"), tmp_path)
    (run,) = runs(repository, tracked)
    assert run.info.status == "FINISHED"
    artifact = repository / "mlartifacts" / run.info.run_id / "artifacts/model"
    assert sorted(path.name for path in artifact.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    warning = capsys.readouterr().err
    assert warning.startswith("warning: `mlflow models serve` will not know this model (RuntimeError: no such thing)")
    assert warning.count("\n") == 1


def test_what_is_packed_lies_where_it_is_deleted_after_a_kill(tracked, repository, tmp_path, monkeypatch):
    packed = []
    monkeypatch.setattr(tracking, "write_serving_files", packed.append)
    (tmp_path / "checkpoint").mkdir()
    with tracking.training_run(tracked, TRAIN) as tracker:
        tracker.model(write_model(tmp_path / "models"), tmp_path / "checkpoint")
    assert packed[0].is_relative_to(tmp_path / "checkpoint")


def test_without_tracking_nothing_is_packed(config, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "write_serving_files", lambda folder: pytest.fail("packed"))
    off = config.model_copy(update={"tracking": config.tracking.model_copy(update={"enabled": False})})
    with tracking.training_run(off, TRAIN) as tracker:
        tracker.model(tmp_path, tmp_path)


def post(port, content):
    """Status and JSON of the server's answer."""
    url = f"http://127.0.0.1:{port}/invocations"
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def answers(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_pictures_come_over_http(logged, repository, tmp_path):
    folder, run_id = logged
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        f"runs:/{run_id}/model",
        "--env-manager",
        "local",
    ]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{repository / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    (tmp_path / "elsewhere").mkdir()  # with no ddpm in it but the model's own
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=tmp_path / "elsewhere", env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(lambda: server.poll() is not None or answers(port), seconds=120, pause=0.5)
        assert server.poll() is None, (tmp_path / "log").read_text()
        wish = {"n": 2, "seed": 0, "steps": 5}
        for form in ("dataframe_records", "inputs"):
            status, answer = post(port, {form: [wish]})
            assert status == 200
            (pngs,) = answer["predictions"]
            ours = load_model(folder, device="cpu").sample(**wish)
            assert np.array_equal([pixels(png) for png in pngs], ours)
        status, answer = post(port, {"dataframe_records": [{"n": 1, "steps": 5000}]})
        assert status == 400 and "steps: found 5000, choose 1 to 1000" in answer["message"]
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # the server is a child of the command
        server.wait(timeout=30)
