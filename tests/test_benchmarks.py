"""That the benchmarks run and write what they should; their figures are no matter of a test."""

import argparse
import json

import pytest
import torch

from benchmarks import sampling
from ddpm.model_file import save_model
from ddpm.unet import UNet


@pytest.fixture
def models(tiny_model, tmp_path):
    training = {"parameters": 1, "epochs": 1, "source": "synthetic"}
    config = {
        "schedule": "cosine",
        "diffusion": {"timesteps": 50, "target": "v", "variance": "fixed"},
        "model": tiny_model.model_dump(),
        "image_size": 16,
        "class_names": ["flower"],
        "class_counts": [1],
        "training": training,
    }
    save_model(tmp_path / "models", UNet(tiny_model, 16).state_dict(), config)
    return tmp_path / "models"


def test_speed_is_measured_beside_the_network_alone_and_diffusers(models, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "MODELS", models)
    monkeypatch.setattr(sampling, "RESULTS", tmp_path)
    sampling.measure_speed(argparse.Namespace(batch_size=2, steps=2, rounds=2))
    result = json.loads((tmp_path / "sampling_speed.json").read_text())
    names = [f"{whose}: {name}" for whose in ("ours", "diffusers") for name in sampling.PAIRS]
    assert sorted(result["contenders"]) == sorted(names)
    for row in result["contenders"].values():
        assert 0 < row["images_per_second"]["min"] <= row["images_per_second"]["median"]
        assert row["time_over_network_alone"]["median"] > 0.5  # it contains the network's calls
    assert result["machine"]["torch"] == torch.__version__


def test_the_plot_has_a_line_per_sampler(tmp_path):
    rows = [
        {"sampler": sampler, **options, "steps": steps, "fid": 100 / steps, "kid": 0.1, "kid_error": 0.01}
        for sampler, options, counts in sampling.SCORED
        for steps in counts
    ]
    sampling.draw_scores(rows, "efficientnet_lite0", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
