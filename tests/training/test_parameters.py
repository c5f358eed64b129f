"""Each parameter of data, model, diffusion and training reaches the place that it is meant for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ddpm.commands.estimate import random_images
from ddpm.config import Config, flatten, parse_config
from ddpm.diffusion.schedules import SCHEDULES
from ddpm.network.unet import Attention, ResidualBlock
from ddpm.training import loop, setup, step
from tests.support.trainings import Recorder

CPU = torch.device("cpu")
IMAGES = 24


@pytest.fixture
def small(params) -> dict:
    """Parameters of a network without a speck of fat, to be changed one at a time."""
    params |= {"device": "cpu", "epochs": 1}
    params["data"] |= {"image_size": 16, "holdout": 0.25}
    params["model"] |= {
        "channels": 16, "channel_mults": [1, 2], "blocks": 1, "attention": [8], "head_channels": 16,
        "conditional": True,
    }  # fmt: skip
    params["diffusion"]["timesteps"] = 40
    params["train"] |= {"batch_size": 8, "warmup_steps": 4}
    params["sample"]["steps"] = 4
    return params


def changed(params: dict, name: str, value: object) -> Config:
    *groups, key = name.split(".")
    for group in groups:
        params = params[group]
    params[key] = value
    return value


def trained(params: dict, name: str, value: object) -> loop.Training:
    """The training of these parameters, with one of them changed."""
    changed(params, name, value)
    config = parse_config(params)
    return setup.prepare(config, random_images(config, IMAGES), CPU)


def blocks(training):
    return [module for module in training.unet.modules() if isinstance(module, ResidualBlock)]


def step_of(training):
    return training.optimisation


def learned(training) -> int:
    return training.diffusion.output_channels


# Of each parameter: a value that the committed file does not have, and where it must be found.
PLACES = {
    "schedule": ("sigmoid", lambda t: "sigmoid" * torch.equal(t.diffusion.alphas_cumprod, SCHEDULES["sigmoid"](40))),
    "epochs": (7, lambda t: t.epochs),
    "seed": (5, lambda t: t.seed),
    "data.image_size": (8, lambda t: t.train_set.images.shape[-1]),
    "data.holdout": (0.5, lambda t: len(t.heldout_set) / IMAGES),
    "model.channels": (32, lambda t: t.unet.stem.out_channels),
    "model.channel_mults": ([1, 3], lambda t: [1, t.unet.middle[0].block.conv1.out_channels // 16]),
    "model.blocks": (3, lambda t: (len(blocks(t)) - 4) // 4),
    "model.attention": ([16], lambda t: [16] * isinstance(t.unet.down[0].attention, Attention)),
    "model.head_channels": (8, lambda t: 32 // t.unet.middle[0].attention.heads),
    "model.dropout": (0.375, lambda t: next(iter({block.dropout.p for block in blocks(t)}))),
    "model.conditional": (False, lambda t: t.unet.class_embedding is not None),
    "model.patch": (2, lambda t: 2 * (t.unet.pixels is not None)),
    "diffusion.timesteps": (77, lambda t: len(t.diffusion.alphas_cumprod)),
    "diffusion.target": ("v", lambda t: t.diffusion.target),
    "diffusion.variance": ("learned", lambda t: "learned" if learned(t) == 6 else "fixed"),
    "train.batch_size": (6, lambda t: len(step_of(t)._batch(0)[0])),
    "train.lr": (3e-3, lambda t: step_of(t).optimizer.param_groups[0]["lr"]),
    "train.weight_decay": (0.3, lambda t: step_of(t).optimizer.param_groups[0]["weight_decay"]),
    "train.ema_decay": (0.35, lambda t: t.ema.decay(10**9)),
    "train.log_every": (3, lambda t: t.config.log_every),
    "train.checkpoint_activations": (True, lambda t: t.unet.checkpoint_activations),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_parameter_is_found_in_its_place(small, name):
    value, place = PLACES[name]
    assert dict(flatten(small))[name] != value
    assert place(trained(small, name, value)) == value


def test_every_parameter_of_a_training_is_looked_at(config):
    """A new parameter needs a line above, or one below that says which test has it."""
    elsewhere = {
        "device",  # below
        "data.source", "data.path", "data.splits", "data.on_bad_image", "data.synthetic.count",
        "data.synthetic.classes", "data.synthetic.seed",  # tests/data/test_parameters.py
        "train.warmup_steps", "train.grad_clip", "train.min_snr", "train.flip", "train.augment", "train.label_dropout",
        "train.accumulate", "train.compile", "train.precision", "train.deterministic",  # below
    }  # fmt: skip
    names = {
        name for name in flatten(config.model_dump(mode="json")) if not name.startswith(("sample", "fid", "tracking"))
    }
    names -= {"train.ema_length", "train.lr_decay", "train.timesteps"}  # test_times.py
    assert names == PLACES.keys() | elsewhere and not PLACES.keys() & elsewhere


def test_the_seed_decides_weights_order_and_noise(small):
    one, other = (trained(small, "seed", seed) for seed in (1, 2))
    again = trained(small, "seed", 1)
    for first, second, equal in ((one, other, False), (one, again, True)):
        x0, _, t, eps = first.optimisation._batch(0)
        y0, _, u, zeta = second.optimisation._batch(0)
        assert torch.equal(first.unet.stem.weight, second.unet.stem.weight) is equal
        assert torch.equal(x0, y0) is torch.equal(t, u) is torch.equal(eps, zeta) is equal


def test_the_rate_rises_over_the_warm_up_to_its_peak(small):
    small["train"]["lr"], rates = 1e-3, []
    training = trained(small, "train.warmup_steps", 3)
    for number in range(5):
        training.train_step(number)
        rates.append(training.optimisation.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3, 1e-3])


def test_the_norm_to_which_gradients_are_clipped(small, monkeypatch):
    training, limits = trained(small, "train.grad_clip", 0.125), []
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(
        torch.nn.utils, "clip_grad_norm_", lambda weights, limit: limits.append(limit) or clip(weights, limit)
    )
    training.train_step(0)
    assert limits == [0.125]


def test_gamma_of_min_snr_is_that_of_the_parameter(small, monkeypatch):
    training, gammas = trained(small, "train.min_snr", 2.5), []
    weight = training.diffusion.min_snr_weight
    monkeypatch.setattr(training.diffusion, "min_snr_weight", lambda t, gamma: gammas.append(gamma) or weight(t, gamma))
    training.train_step(0)
    assert gammas == [2.5]


@pytest.mark.parametrize(("flip", "share"), [(True, 0.5), (False, 0.0)])
def test_half_of_the_images_are_mirrored_or_none(small, flip, share):
    training = trained(small, "train.flip", flip)
    stored = {image.tobytes() for image in training.train_set.batch(torch.arange(len(training.train_set)))[0].numpy()}
    batches = [training.optimisation._batch(number)[0] for number in range(40)]
    mirrored = [image.tobytes() not in stored for batch in batches for image in batch.numpy()]
    assert np.mean(mirrored) == pytest.approx(share, abs=0.1 * flip)


@pytest.mark.parametrize("rate", [0.25, 0.75])
def test_labels_are_withheld_at_the_rate_of_the_parameter(small, rate):
    training = trained(small, "train.label_dropout", rate)
    labels = torch.cat([training.optimisation._batch(number)[1] for number in range(60)])
    assert (labels == training.unet.none_class).float().mean().item() == pytest.approx(rate, abs=0.08)


def test_the_probability_of_an_augmentation_reaches_its_draw(small, monkeypatch):
    given, draw = [], step.draw
    monkeypatch.setattr(step, "draw", lambda *words: given.append(words[:2]) or draw(*words))
    trained(small, "train.augment", 0.375).train_step(0)
    assert given == [(8, 0.375)]


def test_a_batch_is_taken_in_as_many_parts_as_the_parameter_says(small, monkeypatch):
    training, sizes = trained(small, "train.accumulate", 4), []
    losses = training.optimisation.losses
    monkeypatch.setattr(
        training.optimisation, "losses", lambda network, x0, *rest: sizes.append(len(x0)) or losses(network, x0, *rest)
    )
    training.train_step(0)
    assert sizes == [2, 2, 2, 2]


def test_precision_compilation_and_determinism_are_asked_for_as_they_stand(small, monkeypatch):
    asked = {}
    monkeypatch.setattr(step, "autocast_dtype", lambda value, _device: asked.update(precision=value))
    monkeypatch.setattr(step, "compiles", lambda value, exact, _device: asked.update(compile=value, exact=exact))
    monkeypatch.setattr(setup, "make_deterministic", lambda: asked.update(made=True))
    small["train"] |= {"precision": "bf16", "compile": True}
    trained(small, "train.deterministic", True)
    assert asked == {"precision": "bf16", "compile": True, "exact": True, "made": True}
    asked.clear()
    trained(small, "train.deterministic", False)
    assert "made" not in asked and not asked["exact"]


def test_the_device_is_that_of_the_parameter(small, monkeypatch):
    monkeypatch.setattr(setup, "check_device", lambda name: (_ for _ in ()).throw(KeyError(name)))
    changed(small, "device", "cuda")
    config = parse_config(small)
    with pytest.raises(KeyError, match="cuda"):
        setup.check(config, random_images(config, IMAGES))


def test_previews_and_quick_scores_come_as_often_as_their_parameters_say_from_the_seed(small, monkeypatch):
    small["tracking"]["preview_every"], small["fid"]["every"], small["seed"] = 3, 2, 9
    given = {}
    monkeypatch.setattr(setup, "QuickScores", lambda *words: given.update(quick=words))
    monkeypatch.setattr(
        setup.DiffusionModel,
        "sample",
        lambda _model, n, **options: given.update(options) or np.zeros((n, 16, 16, 3), np.uint8),
    )
    config = parse_config(small)
    packed = random_images(config, IMAGES)
    training = setup.prepare(config, packed, CPU)
    gallery = SimpleNamespace(image=lambda *_: None, metrics=Recorder().metrics)
    about = setup.describe_model(config, packed, training)
    (often, preview), (less, _) = setup.callbacks_of(config, packed, training, about, gallery)
    preview(training.ema.model, 1)
    assert (often, less) == (3, 2) and (given["seed"], given["steps"]) == (9, 25)
    fid, images, rows, _device, seed = given["quick"]
    assert (fid, images is packed.images, seed) == (config.fid, True, 9)
    assert np.array_equal(rows, packed.split(0.25)[0])


def test_a_preview_takes_no_more_steps_than_there_are_noise_levels(small):
    small["diffusion"]["timesteps"] = small["sample"]["steps"] = 3
    small["tracking"]["preview_every"], small["fid"]["every"] = 1, 0
    config, sent = parse_config(small), []
    packed = random_images(config, IMAGES)
    training = setup.prepare(config, packed, CPU)
    gallery = SimpleNamespace(image=lambda key, _image, step: sent.append((key, step)))
    about = setup.describe_model(config, packed, training)
    ((_, preview),) = setup.callbacks_of(config, packed, training, about, gallery)
    preview(training.ema.model, 7)
    assert sent == [("samples", 7)]
