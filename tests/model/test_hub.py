"""An exported model goes to the Hugging Face Hub, here a server of this machine that answers as the hub does."""

import base64
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest
import yaml
from diffusers import DDPMPipeline

from ddpm import load_model
from tests.support.exported import export, write_model


class Hub(ThreadingHTTPServer):
    """What it was sent: the repositories that were created, and the files of the last commit to each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.created: list[dict] = []
        self.files: dict[str, dict[str, bytes]] = {}
        self.status = 200  # of creating a repository


class Answers(BaseHTTPRequestHandler):
    def log_message(self, *_arguments):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match self.path.removeprefix("/api/").split("/"):
            case _ if self.server.status != 200:
                self.answer({"error": "no"}, self.server.status)
            case ["repos", "create"]:
                self.server.created.append(json.loads(body) | {"token": self.headers["Authorization"]})
                self.answer({"url": f"{self.server.page}/somebody/flowers"})
            case ["models", *_, "preupload", "main"]:
                names = [file["path"] for file in json.loads(body)["files"]]
                regular = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
                self.answer({"files": regular})
            case ["models", owner, name, "commit", "main"]:
                lines = [json.loads(line) for line in body.splitlines()]
                self.server.files[f"{owner}/{name}"] = {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in lines
                    if line["key"] == "file"
                }
                url = f"{self.server.page}/{owner}/{name}/commit/{'0' * 40}"
                self.answer({"success": True, "commitUrl": url, "commitOid": "0" * 40})
            case _:  # /api/validate-yaml
                self.answer({})

    def do_GET(self):
        self.answer({"error": "no"}, 404)

    def answer(self, content: dict, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server = Hub()
    server.page = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.page)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_both_formats_and_the_card_arrive_in_a_private_repository(hub, monkeypatch, capsys, tmp_path):
    write_model(tmp_path / "models", changes={"attention": [8]})
    export(monkeypatch, "--push", "somebody/flowers", "--format", "both")
    (created,) = hub.created
    assert (created["organization"], created["name"], created["visibility"]) == ("somebody", "flowers", "private")
    assert created["token"] == "Bearer hf_secret"
    assert f"The model is at {hub.page}/somebody/flowers;" in capsys.readouterr().out
    for name, content in hub.files["somebody/flowers"].items():
        (tmp_path / "received" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "received" / name).write_bytes(content)
    assert load_model(tmp_path / "received", "cpu").sample(2, steps=2).shape == (2, 16, 16, 3)
    assert DDPMPipeline.from_pretrained(tmp_path / "received").unet.config.sample_size == 16
    card = (tmp_path / "received/README.md").read_text()
    assert card.count("```python\n") == 2 and "with its schedule, and as float16" in card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "received"]


def test_a_folder_is_written_too_where_one_is_named(hub, monkeypatch, tmp_path):
    write_model(tmp_path / "models")
    export(monkeypatch, "exported", "--push", "somebody/flowers")
    written = {path.relative_to("exported").as_posix() for path in Path("exported").rglob("*") if path.is_file()}
    assert written == hub.files["somebody/flowers"].keys() and "model_index.json" in written


def test_scores_are_metadata_that_the_hub_reads(hub, monkeypatch, tmp_path):
    scored = {"fid": 12.3, "kid": 0.0067, "precision": 0.61, "recall": 0.41, "coverage": 0.5}
    folder = write_model(tmp_path / "models")
    sha256 = json.loads((folder / "config.json").read_text())["weights_sha256"]
    (tmp_path / "reports/scores").mkdir(parents=True)
    about = {
        "model_sha256": sha256, "extractor": "inception", "samples": 10000, "reference": "all", "floor": None,
        "reference_images": 8189, "sampling": {"sampler": "ddim"},
        "scores": {name: {"value": value, "low": 0.0, "high": value} for name, value in scored.items()}
        | {"memorisation": None},
    }  # fmt: skip
    (tmp_path / "reports/scores/scores.json").write_text(json.dumps(about))
    export(monkeypatch, "--push", "somebody/flowers")
    card = hub.files["somebody/flowers"]["README.md"].decode()
    results = huggingface_hub.ModelCard(card).data.eval_results
    assert {result.metric_type: result.metric_value for result in results} == scored
    assert results[0].metric_name == "FID (inception features, 10000 samples)"
    assert results[0].dataset_name == "Oxford Flowers-102"


def test_a_card_without_scores_has_no_results(hub, monkeypatch, tmp_path):
    write_model(tmp_path / "models")
    export(monkeypatch, "--push", "somebody/flowers")
    front = hub.files["somebody/flowers"]["README.md"].decode().split("---\n")[1]
    assert "model-index" not in yaml.safe_load(front)


@pytest.mark.parametrize(
    ("arguments", "status", "code", "said"),
    [
        ([], 200, 2, "export: neither DIR nor --push OWNER/NAME says where to; name one of them"),
        (["--push", "flowers"], 200, 2, "--push: found 'flowers'; name a repository as OWNER/NAME"),
        (["--push", "some body/fl..owers"], 200, 2, "--push: found 'some body/fl..owers'; name a repository as OWNER"),
        (["--push", "a/b"], 401, 2, "the hub does not let you write to a/b; log in with `hf auth login`"),
        (["--push", "a/b"], 403, 2, "the hub does not let you write to a/b; log in with `hf auth login`"),
        (["--push", "a/b"], 500, 1, "nothing is lost here, push again later"),
    ],
)
def test_what_is_wrong_is_reported_in_a_line(hub, monkeypatch, tmp_path, capsys, arguments, status, code, said):
    write_model(tmp_path / "models")
    hub.status = status
    with pytest.raises(SystemExit) as ended:
        export(monkeypatch, *arguments)
    printed = capsys.readouterr().err
    assert ended.value.code == code and said in printed and printed.count("\n") == 1


def test_a_hub_that_is_not_there(monkeypatch, tmp_path, capsys):
    write_model(tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SystemExit) as ended:
        export(monkeypatch, "--push", "somebody/flowers")
    assert ended.value.code == 1 and "http://127.0.0.1:9 failed (" in capsys.readouterr().err


def test_without_the_package_it_says_how_to_install_it(monkeypatch, tmp_path, capsys):
    write_model(tmp_path / "models")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SystemExit) as ended:
        export(monkeypatch, "--model", tmp_path / "models", "--push", "somebody/flowers")
    assert ended.value.code == 2 and "`pip install huggingface-hub` adds it" in capsys.readouterr().err
