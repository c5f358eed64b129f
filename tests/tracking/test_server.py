"""A real tracking server on loopback, and a connection to it that can be cut."""

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support.tiny_repository import call, digests, environment, make_repository, wait_for

pytestmark = pytest.mark.slow


class Line:
    """A TCP connection from a port of its own to the server; cut, it refuses, as a dead server does."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._open: list[socket.socket] = []
        self._entrance = socket.create_server(("127.0.0.1", 0))
        self.port = self._entrance.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._entrance,), daemon=True).start()

    def cut(self) -> None:
        for side in [self._entrance, *self._open]:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()

    def mend(self) -> None:
        self._entrance = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._entrance,), daemon=True).start()

    def _accept(self, entrance: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = entrance.accept()
                far = socket.create_connection(("127.0.0.1", self._server))
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200
    return False


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    folder = tmp_path_factory.mktemp("server")
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(lambda: answers(port), seconds=120, pause=0.5)
        yield Line(port)
    finally:
        server.terminate()
        server.wait(timeout=60)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, line: Line) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.support.tiny_repository.SERVER", {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{line.port}"})
        yield make_repository(tmp_path_factory.mktemp("team") / "repository", restless=True)


def server_runs(line: Line) -> list:
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{line.port}")
    experiment = client.get_experiment_by_name("flowers-ddpm")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def artifacts(line: Line, run) -> set[str]:
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{line.port}")
    return {file.path for file in client.list_artifacts(run.info.run_id)}


def test_a_team_server_gets_the_whole_run(root, line):
    call(root, "dvc", "repro")
    (run,) = server_runs(line)
    assert run.info.status == "FINISHED"
    assert run.data.params["schedule"] == "linear" and run.data.tags["git.commit"]
    assert run.data.metrics["efficientnet_lite0/fid"] > 0 and run.data.metrics["train/loss"] > 0
    assert {"model", "images", "report"} <= artifacts(line, run)
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
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{line.port}")
    for name in ("loss", "heldout_loss", "learning_rate", "grad_norm"):
        curves = [client.get_metric_history(run.info.run_id, name) for run in (whole, sent)]
        expected, found = ([(point.step, point.value) for point in curve] for curve in curves)
        assert found == expected, name
