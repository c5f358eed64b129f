"""A class without a training image, all held out or none at all: reported, never drawn, and refused by its name."""

import numpy as np
import pandas as pd
import pytest
import torch

from ddpm.config import parse_config
from ddpm.data.dataset import PackedImages
from ddpm.model.trained import DiffusionModel
from ddpm.runtime.errors import InputError
from ddpm.training.setup import describe_model, prepare, resume


class NoCheckpoint:
    def load(self):
        return None


@pytest.fixture
def model_of(params):
    """Makes an untrained model of 20 images, by the class of each."""
    params["data"] |= {"image_size": 16, "holdout": 0.2}
    params["model"] |= {"channels": 8, "channel_mults": [1, 2], "blocks": 1, "attention": [8], "head_channels": 8}
    params["train"]["batch_size"] = 4

    def make(labels: np.ndarray, conditional: bool = True) -> DiffusionModel:
        params["model"]["conditional"] = conditional
        config = parse_config(params)
        names = ["rose", "tulip", "lily"]
        items = pd.DataFrame({"id": [str(row) for row in range(20)], "label": labels, "width": 16, "height": 16})
        images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
        counts = np.bincount(np.delete(labels, held_out()), minlength=3).tolist()
        packed = PackedImages(images, items, {"source": "folder", "class_names": names, "class_counts": counts})
        training = prepare(config, packed, torch.device("cpu"))
        about = describe_model(config, packed, training)
        resume(training, packed, about, NoCheckpoint())
        return DiffusionModel(training.ema.model, about)

    return make


def held_out() -> np.ndarray:
    from ddpm.data.dataset import split_holdout

    return split_holdout([str(row) for row in range(20)], 0.2)[1]


@pytest.mark.parametrize("held", [True, False])
def test_a_class_without_a_training_image_is_never_drawn_and_refused(model_of, capsys, held):
    labels = np.arange(20) % 2
    if held:
        labels[held_out()] = 2
    model = model_of(labels)
    assert model.unseen_classes == ["lily"] and model.config["class_counts"] == [9, 7, 0]
    assert "No training image shows 'lily': the model" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"class: 'lily' had no training image, .* lower data.holdout"):
        model.sample(1, steps=1, label="LILY")
    assert model.sample(2, steps=1, label=["rose", "tulip"]).shape == (2, 16, 16, 3)


@pytest.mark.parametrize("conditional", [True, False])
def test_other_models_are_described_as_ever(model_of, conditional):
    labels = np.arange(20) % 3
    if not conditional:
        labels[held_out()] = 2
    model = model_of(labels, conditional)
    assert model.unseen_classes == [] and "unseen_classes" not in model.config["training"]
    assert model.config["class_counts"] == np.bincount(np.delete(labels, held_out()), minlength=3).tolist()
