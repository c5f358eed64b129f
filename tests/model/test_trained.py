import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ddpm
from ddpm.data.pixels import from_uint8, to_uint8
from ddpm.diffusion.noise import ImageNoise
from ddpm.runtime.errors import InputError
from tests.support.networks import write_model


@pytest.fixture
def folder(tmp_path, tiny_model):
    return write_model(tmp_path / "model", tiny_model)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eta": 0.7},
        {"sampler": "ddpm", "variance": "large"},
        {"sampler": "ddpm", "variance": "learned"},
        {"sampler": "dpmpp_2m", "spacing": "logsnr"},
        {"sampler": "dpmpp_2m_sde", "spacing": "uniform"},
    ],
)
def test_image_depends_on_seed_and_index_not_on_batch_size(tmp_path, tiny_model, conditional, options):
    variance = "learned" if "variance" in options else "fixed"
    model = ddpm.load_model(write_model(tmp_path, tiny_model, conditional, variance, target="v"), device="cpu")
    whole = model.sample(7, steps=6, seed=3, batch_size=7, **options)
    parts = model.sample(7, steps=6, seed=3, batch_size=2, **options)
    assert whole.shape == (7, 16, 16, 3) and whole.dtype == np.uint8
    assert np.abs(whole.astype(int) - parts.astype(int)).max() <= 1
    assert np.array_equal(whole, model.sample(7, steps=6, seed=3, batch_size=7, **options))
    last = model.sample(2, first=5, steps=6, seed=3, **options)
    assert np.abs(whole[5:].astype(int) - last.astype(int)).max() <= 1
    assert not np.array_equal(whole, model.sample(7, steps=6, seed=4, batch_size=7, **options))


def test_a_gpu_samples_with_tf32_as_it_trains(folder):
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
    try:
        ddpm.load_model(folder, device="cpu")
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_saving_twice_gives_the_same_bytes(tmp_path, tiny_model):
    for name in ("a", "b"):
        write_model(tmp_path / name, tiny_model)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_classes_are_drawn_as_often_as_in_the_data(tmp_path, tiny_model):
    model = ddpm.load_model(write_model(tmp_path, tiny_model, conditional=True), device="cpu")
    labels = model._draw_labels(ImageNoise(0, range(2000), (3, 2, 2), torch.device("cpu"))).tolist()
    assert labels.count(1) == 0
    assert 5 <= labels.count(0) <= 45  # 1 % of 2,000


def test_pixels_are_rounded_like_an_image_file():
    x = torch.tensor([-2.0, -1.0, -0.999, 0.0, 0.5, 1.0, 3.0]).view(1, 1, 1, 7).expand(1, 3, 1, 7)
    assert to_uint8(x)[0, 0, :, 0].tolist() == [0, 0, 0, 128, 191, 255, 255]


def test_every_grey_level_survives_the_round_trip():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(torch.from_numpy(to_uint8(from_uint8(levels))).permute(0, 3, 1, 2), levels)


def test_too_many_steps_are_refused(folder):
    with pytest.raises(InputError, match="steps: found 2000, choose 1 to 1000"):
        ddpm.load_model(folder, device="cpu").sample(1, steps=2000)


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "euler"},
        {"spacing": "leading"},
        {"eta": 2.0},
        {"guidance": -1.0},
        {"guidance": float("nan")},
        {"precision": "fp16"},
        {"sampler": "ddpm", "variance": "huge"},
        {"seed": -1},
        {"first": -1},
        {"batch_size": 0},
        {"n": 0},
    ],
)
def test_an_option_out_of_range_is_refused_by_name(folder, options):
    *_, name = options
    with pytest.raises(InputError, match=f"{name}: found .*, choose "):
        ddpm.load_model(folder, device="cpu").sample(**{"n": 1, "steps": 2} | options)


def test_learned_variance_of_a_model_without_is_refused(folder):
    with pytest.raises(InputError, match="variance: found 'learned', but this model has learned none; choose small"):
        ddpm.load_model(folder, device="cpu").sample(1, steps=2, sampler="ddpm", variance="learned")


def test_variances_give_different_images(tmp_path, tiny_model):
    model = ddpm.load_model(write_model(tmp_path, tiny_model, variance="learned"), device="cpu")
    small, large, learned = (
        model.sample(2, steps=6, sampler="ddpm", variance=variance).astype(int)
        for variance in ("small", "large", "learned")
    )
    assert min(np.abs(a - b).max() for a, b in ((small, large), (small, learned), (large, learned))) > 3


class Operations(TorchDispatchMode):
    """Notes what PyTorch does."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "ddpm", "variance": "learned"},
        {"sampler": "ddim", "eta": 1.0},
        {"sampler": "ddim", "guidance": 2.0},
        {"sampler": "dpmpp_2m"},
        {"sampler": "dpmpp_2m_sde"},
    ],
)
def test_no_step_waits_for_the_device(tmp_path, tiny_model, options):
    """Reading a value (.item(), .tolist(), `if tensor`) would hold the host until a GPU has caught up."""
    model = ddpm.load_model(write_model(tmp_path, tiny_model, True, variance="learned"), device="cpu")
    with Operations() as operations:
        list(model.trajectory(range(2), steps=4, seed=0, **options))
    assert "aten::conv2d" in operations.names
    reading = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::equal")
    assert not operations.names.intersection(reading)


def test_cuda_without_a_gpu_is_refused(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA GPU"):
        ddpm.load_model(folder, device="cuda")


@pytest.mark.parametrize("damage", ["no folder", "no weights", "truncated", "garbage", "other config", "no key"])
def test_damaged_model_is_refused_in_a_sentence(folder, damage):
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "no folder":
        folder = folder / "nowhere"
    elif damage == "no weights":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "garbage":
        weights.write_bytes(b"<html>not found</html>")
    else:
        content = json.loads(config.read_text())
        if damage == "other config":
            content["model"]["channels"] = 32
        else:
            del content["image_size"]
        config.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        ddpm.load_model(folder, device="cpu")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_importing_the_package_is_light():
    code = "import sys, ddpm; print([m for m in ('mlflow', 'matplotlib', 'torch') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    code = "import sys; from ddpm import load_model; print([m for m in ('mlflow', 'matplotlib') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_model_generates_without_dropout(tmp_path, tiny_model):
    folder = write_model(tmp_path, tiny_model.model_copy(update={"dropout": 0.5}))
    model = ddpm.load_model(folder, device="cpu")
    model.unet.train()
    one, other = (model.sample(2, steps=2, seed=0) for _ in range(2))
    assert np.array_equal(one, other)
