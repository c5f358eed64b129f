"""Shared pieces: a tiny network and its configuration."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from ddpm.__main__ import main
from ddpm.config import Config, ModelConfig, load_config, parse_config

# A test must see its own temporary repository, whatever runs the tests.
for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_"))]:
    del os.environ[name]
os.environ["TQDM_DISABLE"] = "1"
os.environ["MLFLOW_LOGGING_LEVEL"] = "CRITICAL"  # as the stages have it; read when MLflow is imported


# A shell ignores Ctrl-C for what it starts in the background, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Networks this small gain nothing from a second thread, and lose much where other work shares the cores.
torch.set_num_threads(1)


@pytest.fixture
def tiny_model() -> ModelConfig:
    return ModelConfig(
        channels=16, channel_mults=[1, 2], blocks=1, attention=[8], head_channels=16, dropout=0.0, conditional=False
    )


@pytest.fixture
def params() -> dict:
    """The committed params.yaml as nested dictionaries, free to be changed."""
    return yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def config(params) -> Config:
    return parse_config(params)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run `python -m ddpm` with these words, in this process; returns its exit code, and all that it printed."""

    def command(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ddpm", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return command


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose MLflow store is made once, because that takes seconds; see `tracked`."""
    root = tmp_path_factory.mktemp("a repository")
    (root / ".dvc").mkdir()
    return root


@pytest.fixture
def tracked(repository: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """Parameters with an MLflow experiment for this test alone, in the working directory `repository`."""
    config = load_config("params.yaml")
    monkeypatch.chdir(repository)
    for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    tracking = config.tracking.model_copy(update={"experiment": request.node.name})
    yield config.model_copy(update={"tracking": tracking})
    shutil.rmtree(repository / ".unsent", ignore_errors=True)


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the keys and shapes of the true Inception weights, which are a download, filled at random."""
    import pytorch_fid.inception  # here, because the tests that need a GPU do without it

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(nn.Module, "load_state_dict", lambda *_: None)
        network = pytorch_fid.inception.fid_inception_v3()
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def conditional(tiny_model):
    return tiny_model.model_copy(update={"conditional": True})
