"""A real tracking server on loopback, and a connection to it that can be cut."""

import contextlib
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from tests.support.tiny_repository import environment, wait_for


class Line:
    """A TCP connection from a port of its own to the server; cut, it refuses, as a dead server does."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._open: list[socket.socket] = []
        self._entrance = socket.create_server(("127.0.0.1", 0))
        self.port = self._entrance.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._entrance,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.address)

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


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Line]:
    """A line to a server that keeps its runs in a folder, and ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
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


def server_runs(line: Line) -> list[Run]:
    """All runs of the experiment, the oldest first."""
    experiment = line.client.get_experiment_by_name("flowers-ddpm")
    return line.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
