"""A workspace as `dvc repro reference` leaves it, on a small scale, for benchmarks that train, generate and score."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from ddpm.commands.estimate import random_images
from ddpm.config import Config, ModelConfig, parse_config
from ddpm.evaluation import results
from ddpm.evaluation.features import extract
from ddpm.runtime import checkpoint
from ddpm.runtime.arrays import save_array
from stages import fid
from tests.support import ROOT


class FewFeatures(nn.Module):
    """Sees 12 numbers in an image, in no time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.look = nn.Conv2d(3, 12, 4, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        return self.look(images.float() / 255).square().mean((2, 3))


def small_config(params: dict, model: ModelConfig) -> Config:
    """The parameters with a network, images and batches that take no time."""
    params["model"] = model.model_dump()
    params["data"] |= {"image_size": 16, "source": "synthetic"}
    params["train"] |= {"batch_size": 8, "precision": "fp32"}
    params["sample"] |= {"steps": 3, "batch_size": 8}
    params["fid"] |= {"extractor": "efficientnet_lite0"}
    return parse_config(params | {"device": "cpu"})


def make_workspace(root: Path, config: Config, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter a workspace with so many random images; a checkpoint is kept after every step or batch."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    monkeypatch.setattr(checkpoint, "SHARE", 0)
    monkeypatch.setattr(results, "load_extractor", lambda *_: FewFeatures().requires_grad_(False))
    # Half of the time, for a picture.
    monkeypatch.setattr(fid, "save_neighbours", lambda *given: given[-1].parent.mkdir(parents=True, exist_ok=True))
    for name in ("dvc", "mlflow"):  # which a borrowed GPU may lack
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("ddpm", "stages", "dvc.yaml"):
        Path(name).symlink_to(ROOT / name)
    Path("params.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    packed = random_images(config, images)
    packed.save(Path("data/processed"))
    for name in ("reference", "weights/fetched"):
        Path("data", name).mkdir(parents=True)
    for view, pictures in (("features", packed.images), ("mirrored", packed.images[:, :, ::-1])):
        features = extract(pictures, FewFeatures().requires_grad_(False), 8)
        save_array(Path(f"data/reference/{view}.npy"), features)
    Path("data/reference/reference.json").write_text(json.dumps({"extractor": "efficientnet_lite0"}))
    record = {"extractor": "efficientnet_lite0", "file": "none", "sha256": "0" * 64, "origin": "a test"}
    Path("data/weights/fetched/weights.json").write_text(json.dumps(record))
