"""What the doctor checks before it measures: packages, images, weights, disk and store."""

import base64
import contextlib
import json
import socketserver
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddpm.commands import checks
from ddpm.config import parse_config
from ddpm.data.sources.flowers102 import ARCHIVE

CPU = torch.device("cpu")


def test_the_disk_holds_a_download_in_the_store_in_the_workspace_and_in_the_cache(params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse_config(params)
    before = checks.disk_bytes(config, 10**6, 8189)
    archive = tmp_path / "data/raw/fetched" / ARCHIVE
    archive.parent.mkdir(parents=True)
    archive.touch()
    without_archive = checks.disk_bytes(config, 10**6, 8189)
    assert before - without_archive == pytest.approx(3 * 345e6)
    params["fid"] |= {"extractor": "efficientnet_lite0"}
    assert without_archive - checks.disk_bytes(parse_config(params), 10**6, 8189) == pytest.approx(3 * 96e6)


def test_each_fault_is_a_line_with_its_remedy(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setattr(checks, "PACKAGES", ("torch", "no_such_package"))
    tiny["data"] |= {"source": "folder", "path": str(tmp_path / "nowhere")}
    tiny["fid"] |= {"extractor": "inception", "weights": "nowhere.pth"}
    tiny["sample"] |= {"n": 10_000_000}
    tiny["data"] |= {"image_size": 128}
    tiny["model"] |= {"attention": []}
    (tmp_path / "mlflow.db").write_text("no database")
    found = {check.what: check for check in checks.run_checks(parse_config(tiny), 10**12, CPU)}
    assert {check.state for check in found.values()} == {"problem"}
    assert found["packages"].sentence == "no_such_package missing; run `make install`"
    assert found["images"].sentence.endswith("nowhere is no folder; name the folder that holds your images")
    assert found["feature weights"].sentence == "fid.weights: nowhere.pth is no file; correct it or set it to null"
    assert "free some space" in found["disk"].sentence
    assert "mlflow.db cannot be read" in found["MLflow"].sentence


def test_a_server_that_does_not_answer_is_a_problem(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:s3cret@127.0.0.1:9")
    found = {check.what: check for check in checks.run_checks(parse_config(tiny), 1000, CPU)}
    assert found["MLflow"].state == "problem" and "127.0.0.1:9 does not answer" in found["MLflow"].sentence
    assert "s3cret" not in found["MLflow"].sentence


@pytest.fixture
def server(monkeypatch):
    """Starts a server that answers each connection so; names it, with a user and a password, as the store."""
    with contextlib.ExitStack() as stack:

        def start(answer: Callable[[bytes], bytes]) -> None:
            class Handler(socketserver.BaseRequestHandler):
                def handle(self) -> None:
                    self.request.sendall(answer(self.request.recv(10_000)))

            server = stack.enter_context(socketserver.TCPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
            stack.callback(server.shutdown)
            monkeypatch.setenv(
                "MLFLOW_TRACKING_URI", f"http://some%40body:s3cret@127.0.0.1:{server.server_address[1]}/"
            )

        yield start


def test_a_server_that_wants_a_password_gets_it(tiny, server):
    def answer(asked: bytes) -> bytes:
        known = b"Authorization: Basic " + base64.b64encode(b"some@body:s3cret") in asked
        return (
            b"HTTP/1.1 200 OK\r\n\r\nOK" if known and asked.startswith(b"GET /health ") else b"HTTP/1.1 401 No\r\n\r\n"
        )

    server(answer)
    found = {check.what: check for check in checks.run_checks(parse_config(tiny), 1000, CPU)}["MLflow"]
    assert found.state == "OK" and "s3cret" not in found.sentence


def test_a_port_of_another_program_is_a_problem(tiny, server):
    server(lambda _asked: b"SSH-2.0-OpenSSH\r\n")
    found = {check.what: check for check in checks.run_checks(parse_config(tiny), 1000, CPU)}["MLflow"]
    assert found.state == "problem" and "does not answer" in found.sentence and "s3cret" not in found.sentence


def test_a_store_in_use_is_fine(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    with sqlite3.connect("mlflow.db") as connection:
        connection.execute("CREATE TABLE experiments (id INTEGER)")
    found = {check.what: check for check in checks.run_checks(parse_config(tiny), 1000, CPU)}
    assert found["MLflow"].state == "OK"


def test_a_user_without_a_name_is_a_problem(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "user" not in {check.what for check in checks.run_checks(parse_config(tiny), 1000, CPU)}
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 123456)
    found = {check.what: check for check in checks.run_checks(parse_config(tiny), 1000, CPU)}
    assert found["user"].state == "problem" and "user id 123456 has no name" in found["user"].sentence
    assert "export USER=" in found["user"].sentence


@pytest.mark.parametrize("name", ["50%", "feature%2Fx", "what?", "a#b"])
def test_a_store_is_read_in_a_folder_of_any_name(tiny, tmp_path, monkeypatch, name):
    (tmp_path / name / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / name)
    with sqlite3.connect("mlflow.db") as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT)")
        connection.execute("INSERT INTO experiments VALUES (7, 'flowers-ddpm', 'active')")

    def found() -> checks.Check:
        return {check.what: check for check in checks.run_checks(parse_config(tiny), 1000, CPU)}["MLflow"]

    assert found().state == "OK"
    with sqlite3.connect("mlflow.db") as connection:
        connection.execute("UPDATE experiments SET lifecycle_stage = 'deleted'")
    assert found().state == "problem" and "experiments restore --experiment-id 7" in found().sentence


@pytest.mark.parametrize(("splits", "count"), [(["train", "val", "test"], 8189), (["train"], 1020)])
def test_images_of_flowers102_are_known_before_they_are_there(params, tmp_path, monkeypatch, splits, count):
    monkeypatch.chdir(tmp_path)
    params["data"] |= {"splits": splits}
    assert checks.count_images(parse_config(params)) == count


def test_packed_images_count_where_they_are_what_is_asked_for(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/processed").mkdir(parents=True)
    summary = {"source": "synthetic", "image_size": 16, "count": 77, "skipped": [{}, {}]}
    Path("data/processed/summary.json").write_text(json.dumps(summary))
    tiny["data"]["synthetic"]["count"] = 79
    assert checks.count_images(parse_config(tiny)) == 77  # two of 79 could not be read
    tiny["data"]["synthetic"]["count"] = 300
    assert checks.count_images(parse_config(tiny)) == 300
    tiny["data"] |= {"synthetic": tiny["data"]["synthetic"] | {"count": 79}, "image_size": 32}
    tiny["model"] |= {"attention": [16]}
    assert checks.count_images(parse_config(tiny)) == 79
    Path("data/processed/summary.json").write_text("[]")
    assert checks.count_images(parse_config(tiny)) == 79


def test_packed_images_of_another_folder_are_not_those_of_this_one(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data/processed", "a", "b"):
        Path(name).mkdir(parents=True)
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        Path(name).touch()
    summary = {"source": "folder", "image_size": 16, "count": 2, "skipped": []}
    Path("data/processed/summary.json").write_text(json.dumps(summary))
    for folder, found in (("a", (2, True)), ("b", (1, False)), ("gone", (2, True))):
        tiny["data"] |= {"source": "folder", "path": str(tmp_path / folder)}
        assert checks.find_images(parse_config(tiny)) == checks.Images(*found)


def test_weights_of_another_extractor_are_fetched_by_the_next_run(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny["fid"] |= {"extractor": "inception"}
    config = parse_config(tiny)
    nothing = checks.disk_bytes(config, 1000, 10)
    Path("data/weights/fetched").mkdir(parents=True)
    Path("data/weights/fetched/weights.json").write_text(json.dumps({"extractor": "efficientnet_lite0", "file": "x"}))
    found = {check.what: check for check in checks.run_checks(config, 1000, CPU)}["feature weights"]
    assert found.state == "later" and found.sentence == "`dvc repro download` fetches them"
    assert checks.disk_bytes(config, 1000, 10) == nothing


def test_images_of_a_folder_are_counted(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/rose").mkdir(parents=True)
    for name in ("mine/a.JPG", "mine/rose/b.png", "mine/notes.txt"):
        Path(name).touch()
    tiny["data"] |= {"source": "folder", "path": str(tmp_path / "mine")}
    assert checks.count_images(parse_config(tiny)) == 2
