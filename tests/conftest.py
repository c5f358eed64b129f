"""Shared pieces: a tiny network and its configuration."""

import os
from pathlib import Path

import pytest
import torch
import yaml

from ddpm.config import Config, ModelConfig, parse_config

# A test must see its own temporary repository, whatever runs the tests.
for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_"))]:
    del os.environ[name]
os.environ["TQDM_DISABLE"] = "1"


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


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
