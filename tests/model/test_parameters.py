"""Each parameter of `sample` reaches the place that it is meant for, through the stage and the model."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch

import ddpm
from ddpm.config import flatten, parse_config
from ddpm.diffusion.samplers import SAMPLERS, SPACINGS
from ddpm.model import generation, trained
from ddpm.runtime.checkpoint import Checkpoint
from ddpm.runtime.distributed import ALONE, Group
from stages import sample
from tests.support.networks import write_model

# Of each option: a value that the committed file does not have. All together, so that none is taken for another.
WANTED = {
    "sampler": "ddpm", "steps": 7, "spacing": "uniform", "eta": 0.25, "variance": "large", "guidance": 1.75,
    "precision": "bf16",
}  # fmt: skip


@pytest.fixture
def config(params):
    params["model"]["conditional"] = True
    params["sample"] |= WANTED | {"n": 11, "batch_size": 4}
    params["seed"], params["device"] = 23, "cpu"
    return parse_config(params)


def test_every_parameter_of_sampling_is_looked_at(config):
    assert WANTED.keys() | {"n", "batch_size"} == flatten(config.sample.model_dump()).keys()


def test_the_stage_hands_all_of_its_parameters_to_the_model(config, monkeypatch, tmp_path, tiny_model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "reports/samples").mkdir(parents=True)
    write_model(tmp_path / "models", tiny_model, conditional=True)
    given = []

    def draw(_model, n, *, first, batch_size, **options):
        given.append((first, n, batch_size, options))
        return np.full((n, 16, 16, 3), first, np.uint8)

    monkeypatch.setattr(trained.DiffusionModel, "sample", draw)
    monkeypatch.setattr(sample, "spread", lambda *_: None)
    monkeypatch.setattr(sample, "process_group", lambda: nullcontext(ALONE))
    monkeypatch.setattr(sample, "stage_key", lambda *_: "a" * 64)
    sample.main(config)
    options = WANTED | {"seed": 23}
    assert given == [(0, 4, 4, options), (4, 4, 4, options), (8, 3, 4, options)]
    assert np.load("data/samples/samples.npy")[:, 0, 0, 0].tolist() == [0] * 4 + [4] * 4 + [8] * 3
    assert json.loads((tmp_path / "data/samples/origin.json").read_text())["options"] == options


@pytest.fixture
def model(tmp_path, tiny_model):
    return ddpm.load_model(write_model(tmp_path, tiny_model, conditional=True, variance="learned"), device="cpu")


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_model_runs_the_sampler_that_is_named_with_its_own_options(model, monkeypatch, name):
    ran, own = [], {"ddpm": {"variance": "learned"}, "ddim": {"eta": 0.25}}.get(name, {})

    def run(denoise, _diffusion, x, *, steps, noise, **options):
        ran.append((steps, options))
        yield x

    monkeypatch.setitem(SAMPLERS, name, run)
    list(model.trajectory(range(2), sampler=name, steps=7, spacing="uniform", eta=0.25, variance="learned"))
    assert ran == [(SPACINGS["uniform"](model.diffusion, 7), own)]


def test_the_network_is_asked_with_the_guidance_precision_and_class_that_are_wanted(model, monkeypatch):
    asked, predict = [], trained.predict
    monkeypatch.setattr(
        trained,
        "predict",
        lambda *words, **options: asked.append((words[4].tolist(), options)) or predict(*words, **options),
    )
    label = model.config["class_names"][0]
    list(model.trajectory(range(3), steps=2, guidance=1.75, precision="bf16", label=label))
    assert asked == [([0, 0, 0], {"guidance": 1.75, "dtype": torch.bfloat16})] * 2


def test_the_noise_is_that_of_the_seed_and_the_numbers_of_the_images(model, monkeypatch):
    made, noise = [], trained.ImageNoise
    monkeypatch.setattr(
        trained, "ImageNoise", lambda seed, indices, *rest: made.append((seed, indices)) or noise(seed, indices, *rest)
    )
    list(model.batches(5, first=3, batch_size=4, seed=23, steps=1))
    assert made == [(23, range(3, 7)), (23, range(7, 8))]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_image_is_generated_once_by_any_number_of_processes_and_in_its_place(config, tmp_path, size):
    class Numbers:
        """Generates image k with the brightness k."""

        def sample(self, count, *, first, **_options):
            return np.arange(first, first + count, dtype=np.uint8)[:, None, None, None]

    def share(rank):
        folder = tmp_path / str(rank)
        folder.mkdir()
        return generation.generate(Numbers(), config.sample, 4, {}, Checkpoint(folder), Group(rank, size))

    images = generation.in_order([share(rank) for rank in range(size)])
    assert images.ravel().tolist() == list(range(11))


def test_the_strip_has_a_row_for_each_image_from_noise_to_the_right():
    class Model:
        def frames(self, indices, count, **_):
            numbers = np.arange(count)[:, None] * 10 + np.arange(len(indices))
            return np.broadcast_to(numbers[..., None, None, None], (count, len(indices), 64, 64, 3)).astype(np.uint8)

    corners = generation.reverse_strip(Model(), {})[::66, ::66, 0]
    assert corners.tolist() == [[10 * frame + image for frame in range(9)] for image in range(6)]
