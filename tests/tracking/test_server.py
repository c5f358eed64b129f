"""What a real tracking server gets, also over a connection that was cut."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import LoggedModelStatus

from tests.support.tiny_repository import call, digests, environment, make_repository, wait_for
from tests.support.tracking_server import Line, server_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, line: Line) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.support.tiny_repository.SERVER", {"MLFLOW_TRACKING_URI": line.address})
        yield make_repository(tmp_path_factory.mktemp("team") / "repository", restless=True)


def artifacts(line: Line, run) -> set[str]:
    return {file.path for file in line.client.list_artifacts(run.info.run_id)}


def models(line: Line, run) -> list:
    return line.client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")


def test_a_team_server_gets_the_whole_run(root, line):
    call(root, "dvc", "repro")
    (run,) = server_runs(line)
    assert run.info.status == "FINISHED"
    assert run.data.params["schedule"] == "linear" and run.data.tags["git.commit"]
    assert run.data.metrics["efficientnet_lite0/fid"] > 0 and run.data.metrics["train/loss"] > 0
    assert {"images", "report"} <= artifacts(line, run)
    (model,) = models(line, run)
    assert model.status == LoggedModelStatus.READY and len(run.inputs.dataset_inputs) == 1
    assert "efficientnet_lite0/fid" in {metric.key for metric in model.metrics}
    assert not (root / "mlflow.db").exists() and not (root / ".unsent").exists()


def test_what_a_server_that_dies_in_mid_run_missed_is_sent_by_the_command(root, line):
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 2", "epochs: 12"))
    call(root, "python", "-m", "stages.train")
    straight = digests(root, "train")
    shutil.rmtree(root / "models")
    shutil.rmtree(root / ".ckpt")

    training = subprocess.Popen(
        [sys.executable, "-m", "stages.train"], cwd=root, env=environment(), stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: list((root / ".ckpt").glob("*/state.pt")) or training.poll() is not None)
    line.cut()
    warning = training.communicate()[1]
    line.mend()
    assert training.returncode == 0 and warning.count("warning: MLflow failed") == 1
    assert digests(root, "train") == straight
    assert [run.info.status for run in server_runs(line)] == ["FINISHED", "FINISHED", "RUNNING"]

    assert "Sent 1 run." in call(root, "python", "-m", "ddpm", "sync")
    *_, whole, sent = server_runs(line)
    assert sent.info.status == "FINISHED" and artifacts(line, sent) == artifacts(line, whole)
    assert [model.status for model in models(line, sent)] == [LoggedModelStatus.READY]
    for name in ("train/loss", "heldout/loss", "train/learning_rate", "train/grad_norm"):
        curves = [line.client.get_metric_history(run.info.run_id, name) for run in (whole, sent)]
        expected, found = ([(point.step, point.value) for point in curve] for curve in curves)
        assert found == expected != [], name
