import json

import numpy as np
import pytest
import torch

from ddpm import quick_scores
from ddpm.config import FidConfig
from ddpm.errors import InputError
from ddpm.model import DiffusionModel
from ddpm.quick_scores import QuickScores
from ddpm.unet import UNet

CPU = torch.device("cpu")
CONFIG = FidConfig(extractor="efficientnet_lite0", weights=None, reference="all", batch_size=8, every=1)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(quick_scores, "SAMPLES", 8)
    monkeypatch.setattr(quick_scores, "REAL_IMAGES", 10)


def untrained(tiny_model):
    config = {
        "schedule": "cosine",
        "diffusion": {"timesteps": 4, "target": "eps", "variance": "fixed"},
        "model": tiny_model.model_dump(),
        "image_size": 16,
    }
    return DiffusionModel(UNet(tiny_model, 16), config)


def test_a_model_that_paints_the_training_images_scores_far_better_than_noise(tiny_model, monkeypatch):
    images = np.random.default_rng(0).integers(0, 60, (12, 16, 16, 3), dtype=np.uint8)  # dark, unlike the noise
    scores, model = QuickScores(CONFIG, images, CPU, seed=0), untrained(tiny_model)
    noise = scores(model)
    assert scores(model) == noise  # the same network, the same scores
    monkeypatch.setattr(DiffusionModel, "sample", lambda *_, **__: images[:8])
    perfect = scores(model)
    assert perfect["quick/fid"] < 0.5 * noise["quick/fid"] and perfect["quick/kid"] < 0.5 * noise["quick/kid"]


def test_missing_weights_are_told_before_the_training(tmp_path):
    config = CONFIG.model_copy(update={"extractor": "inception"})
    (tmp_path / "weights.json").write_text(json.dumps({"extractor": "efficientnet_lite0"}))
    with pytest.raises(InputError, match="run `dvc repro download`"):
        QuickScores(config, np.zeros((4, 16, 16, 3), np.uint8), CPU, seed=0, weights=tmp_path)
