import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ddpm.commands.estimate import random_images
from ddpm.config import FidConfig, parse_config
from ddpm.evaluation import quick_scores
from ddpm.evaluation.quick_scores import QuickScores
from ddpm.model.trained import DiffusionModel
from ddpm.network.unet import UNet
from ddpm.runtime.checkpoint import Checkpoint
from ddpm.runtime.errors import InputError
from ddpm.training.setup import callbacks_of, describe_model, prepare

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


def test_a_model_that_generates_the_training_images_scores_far_better_than_noise(tiny_model, monkeypatch):
    images = np.random.default_rng(0).integers(0, 60, (12, 16, 16, 3), dtype=np.uint8)  # dark, unlike the noise
    scores, model = QuickScores(CONFIG, images, np.arange(12), CPU, seed=0), untrained(tiny_model)
    noise = scores(model)
    assert scores(model) == noise  # the same network, the same scores
    monkeypatch.setattr(DiffusionModel, "sample", lambda *_, **__: images[:8])
    perfect = scores(model)
    assert perfect["quick/fid"] < 0.5 * noise["quick/fid"] and perfect["quick/kid"] < 0.5 * noise["quick/kid"]


def test_missing_weights_are_told_before_the_training(tmp_path):
    config = CONFIG.model_copy(update={"extractor": "inception"})
    (tmp_path / "weights.json").write_text(json.dumps({"extractor": "efficientnet_lite0"}))
    with pytest.raises(InputError, match="run `dvc repro download`"):
        QuickScores(config, np.zeros((4, 16, 16, 3), np.uint8), np.arange(4), CPU, seed=0, weights=tmp_path)


def test_too_few_images_are_told_before_the_training():
    with pytest.raises(InputError, match=r"fid\.every: 3 training images are too few"):
        QuickScores(CONFIG, np.zeros((9, 16, 16, 3), np.uint8), np.arange(3), CPU, seed=0)


def test_a_training_sends_quick_scores_as_often_as_is_wanted(params, tmp_path, monkeypatch):
    params |= {"device": "cpu", "epochs": 2}
    params["data"]["image_size"] = 16
    params["model"] |= {"channels": 8, "channel_mults": [1, 2], "blocks": 1, "attention": [8], "head_channels": 8}
    params["train"] |= {"batch_size": 8, "log_every": 100}
    params["diffusion"]["timesteps"] = 4
    params["sample"]["steps"] = 4
    params["fid"] |= {"extractor": "efficientnet_lite0", "every": 1}
    params["tracking"]["preview_every"] = 0
    config = parse_config(params)
    packed = random_images(config, 24)
    training = prepare(config, packed, CPU)
    sent = []
    tracker = SimpleNamespace(metrics=lambda metrics, step: sent.append((step, metrics)))
    callbacks = callbacks_of(config, packed, training, describe_model(config, packed, training), tracker)
    training.run(tracker, Checkpoint(tmp_path), *callbacks)
    (first, early), (last, late) = [(step, metrics) for step, metrics in sent if "quick/fid" in metrics]
    assert (first, last) == (training.steps // 2 + training.steps % 2, training.steps)
    assert early.keys() == late.keys() == {"quick/fid", "quick/kid", "quick/epoch"}
    assert (early["quick/epoch"], late["quick/epoch"]) == (pytest.approx(1, abs=0.4), pytest.approx(2, abs=0.4))


def test_trainings_of_all_seeds_are_scored_against_the_same_images(monkeypatch):
    seen = []
    monkeypatch.setattr(quick_scores, "extract", lambda images, *_: seen.append(images) or images[:, 0, 0].astype("f4"))
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    for seed in (0, 1):
        QuickScores(CONFIG, images, np.arange(40), CPU, seed=seed)
    assert len(seen[0]) == 10 and np.array_equal(*seen)
