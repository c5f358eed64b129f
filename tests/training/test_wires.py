"""Each parameter of a training reaches the place that it is meant for, and each random stream is its own."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch

from ddpm.config import parse_config
from ddpm.diffusion.process import Diffusion
from ddpm.runtime.distributed import ALONE
from ddpm.runtime.paths import MODELS
from ddpm.training import loop, setup
from ddpm.training.batches import BatchOrder, generator
from ddpm.training.ema import exponent
from ddpm.training.loop import History
from ddpm.training.times import draws
from stages import train
from tests.support.trainings import Recorder, disks, make


@pytest.fixture
def seen(monkeypatch):
    """What `losses` is given, call by call: network, x0, labels, t, eps."""
    calls = []

    def watch(training):
        losses = training.optimisation.losses
        monkeypatch.setattr(training.optimisation, "losses", lambda *given: calls.append(given) or losses(*given))
        return training

    watch.calls = calls
    return watch


def test_the_order_is_drawn_anew_for_each_epoch():
    order = BatchOrder(20, 20, seed=0)
    epochs = [tuple(order.rows(step)) for step in range(6)]
    assert len(set(epochs)) == 6


@pytest.mark.parametrize(("one", "other"), [(2**32, (0, 1)), (2**40 + 7, (7, 2**8)), (0, (1,))])
def test_no_seed_runs_into_another_purpose_or_seed(one, other):
    """As words of 32 bits, a list [2³², 1] begins like [0, 1, 1]."""
    first = generator(one, 1, 5).integers(2**63)
    assert first != np.random.default_rng([*other, 1, 5]).integers(2**63)
    assert first != generator(other[0], *other[1:], 1, 5).integers(2**63)


def test_streams_of_seeds_purposes_and_positions_all_differ():
    drawn = [
        generator(seed, *position).integers(2**63)
        for seed in (0, 1, 2**32, 2**32 + 1, 2**62)
        for position in ((0, 0), (0, 1), (1,), (1, 0), (2, 0, 1), (2, 1, 0))
    ]
    assert len(set(drawn)) == len(drawn)


def test_no_two_steps_share_their_noise(tiny_model, monkeypatch):
    """A CPU's generator takes 32 bits; drawn at random, two of 40,000 steps would have the same ones in 17 of 100."""
    training, seeds = make(tiny_model, disks(4), batch_size=1), []
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeds.append(seed % 2**32))
    for step in range(0, 5000, 7):
        training.optimisation._batch(step)
    assert len(set(seeds)) == len(seeds) > 700


def test_each_step_and_seed_has_its_own_noise_and_levels(tiny_model, seen):
    for seed in (0, 1):
        training = seen(make(tiny_model, disks(8), batch_size=8, seed=seed))
        for step in range(3):
            training.train_step(step)
    levels = {tuple(t.tolist()) for _, _, _, t, *_ in seen.calls}
    noises = {eps.sum().item() for _, _, _, _, eps, *_ in seen.calls}
    assert len(levels) == len(noises) == 6


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_weight_decay_and_rate_reach_the_optimiser(tiny_model, decay):
    training = make(tiny_model, disks(4), batch_size=4, weight_decay=decay, lr=3e-4, warmup_steps=0)
    (group,) = training.optimisation.optimizer.param_groups
    assert (group["weight_decay"], group["lr"], group["betas"]) == (decay, 3e-4, (0.9, 0.999))
    assert sum(map(torch.numel, group["params"])) == sum(map(torch.numel, training.unet.parameters()))


def test_gradients_are_clipped_to_the_norm_that_is_asked_for_and_reported_as_they_were(tiny_model):
    for limit, clipped in ((1e-3, True), (1e3, False)):
        training = make(tiny_model, disks(4), batch_size=4, grad_clip=limit)
        _, norm = training.train_step(0).tolist()
        left = torch.stack([parameter.grad.norm() for parameter in training.unet.parameters()]).norm().item()
        assert left == pytest.approx(limit if clipped else norm, rel=1e-3)
        assert norm > 1e-3


def test_a_step_clears_clips_moves_and_averages_in_this_order_at_its_own_rate(tiny_model, monkeypatch):
    training, order = make(tiny_model, disks(4), batch_size=4, lr=1e-3, warmup_steps=4), []
    optimizer = training.optimisation.optimizer

    def note(owner, name, said=lambda: None):
        true = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: order.append((name, said())) or true(*a, **k))

    note(optimizer, "zero_grad")
    note(torch.nn.utils, "clip_grad_norm_")
    note(optimizer, "step", lambda: optimizer.param_groups[0]["lr"])
    note(training.ema, "update")
    for step in range(2):
        training.train_step(step)
    assert [name for name, _ in order] == ["zero_grad", "clip_grad_norm_", "step", "update"] * 2
    assert [rate for name, rate in order if name == "step"] == pytest.approx([0.25e-3, 0.5e-3])


def test_the_average_takes_its_decay_and_the_number_of_the_step(tiny_model, monkeypatch):
    training, steps = make(tiny_model, disks(4), batch_size=4, ema_decay=0.35), []
    update = training.ema.update
    monkeypatch.setattr(training.ema, "update", lambda step: steps.append(step) or update(step))
    before = [parameter.clone() for parameter in training.ema.model.parameters()]
    for step in range(3):
        training.train_step(step)
    assert steps == [0, 1, 2]
    assert [training.ema.decay(step) for step in (0, 1, 9, 500)] == pytest.approx([0.1, 2 / 11, 0.35, 0.35])
    assert any(not torch.equal(old, new) for old, new in zip(before, training.ema.model.parameters(), strict=True))
    relative = make(tiny_model, disks(4), batch_size=4, ema_length=0.1).ema
    assert relative.decay(999) == pytest.approx(0.999 ** (exponent(0.1) + 1))


def test_the_average_is_measured_without_dropout(tiny_model):
    images = disks(8)
    training = make(tiny_model.model_copy(update={"dropout": 0.5}), images, images, batch_size=8)
    torch.nn.init.normal_(training.ema.model.head[-1].weight, std=0.1)
    training.train_step(0)
    assert not training.ema.model.training and training.heldout_loss() == training.heldout_loss()


def test_all_that_is_seen_and_kept_of_a_network_is_its_average(tiny_model, seen, monkeypatch, tmp_path):
    images, looked = disks(8), []
    training = seen(make(tiny_model, images, images, epochs=1))
    training.run(Recorder(), loop.Checkpoint(tmp_path), (1, lambda unet, _step: looked.append(unet)))
    assert looked == [training.ema.model]
    assert [network is training.ema.model for network, *_ in seen.calls] == [False, True]  # a step, the held-out loss
    monkeypatch.setattr(setup, "REPORTS", tmp_path)
    monkeypatch.setattr(setup, "loss_by_noise_level", lambda *given: looked.append(given) or pd.DataFrame())
    (tmp_path / "curves").mkdir()
    setup.save_noise_levels(training)
    network, _, images, _ = looked[1]
    assert network is training.ema.model and images is training.heldout_set


def test_the_model_that_is_kept_is_the_average_with_its_own_description(params, monkeypatch):
    training, kept = SimpleNamespace(progress=SimpleNamespace(steps=0), device="cpu", group=ALONE), []
    reporters = []
    training.run = lambda reporter, *_: reporters.append(reporter) or History()
    training.ema = SimpleNamespace(model=SimpleNamespace(sampling_weights=lambda: "average"))
    training.unet = SimpleNamespace(sampling_weights=lambda: "raw")
    for name in ("checksum", "describe", "training_run"):
        monkeypatch.setattr(train, name, MagicMock())
    monkeypatch.setattr(train, "setup", MagicMock())
    monkeypatch.setattr(train, "watched", lambda _tracker, about, extractor: (about, extractor))
    monkeypatch.setattr(train, "save_model", lambda *given: kept.append(given))
    train.train(parse_config(params), MagicMock(), training, {"about": "it"}, "key", MagicMock())
    assert kept == [(MODELS, "average", {"about": "it"})]
    assert reporters == [({"about": "it"}, "inception")]


def test_held_out_losses_of_two_seeds_differ_by_the_network_alone(tiny_model, seen):
    images = disks(8)
    for seed in (0, 1):
        seen(make(tiny_model, images, images, seed=seed)).heldout_loss()
    (_, _, _, t0, eps0), (_, _, _, t1, eps1) = seen.calls
    assert torch.equal(t0, t1) and torch.equal(eps0, eps1)


@pytest.mark.parametrize(("count", "batch_size", "epochs", "steps"), [(10, 4, 1, 3), (10, 4, 2, 5), (3, 16, 1, 1)])
def test_the_last_images_have_a_step_too(tiny_model, count, batch_size, epochs, steps):
    assert make(tiny_model, disks(count), batch_size=batch_size, epochs=epochs).steps == steps


def test_a_point_of_the_curve_is_the_mean_since_the_last_one(tiny_model, tmp_path, monkeypatch):
    training = make(tiny_model, disks(12), batch_size=4, epochs=2, log_every=2)
    values = iter([1.0, 3.0, 10.0, 20.0, 5.0, 7.0])
    monkeypatch.setattr(training, "train_step", lambda _step: torch.tensor([next(values), 0.0]))
    history = training.run(Recorder(), loop.Checkpoint(tmp_path))
    assert [point["loss"] for point in history.train] == [2.0, 15.0, 6.0]


def test_every_noise_level_is_drawn_and_no_other(tiny_model):
    """The first and the last among them, without which a sampler begins where the network was never trained."""
    training = make(tiny_model, disks(8), batch_size=8, timesteps="uniform")
    training.optimisation._times = draws("uniform", Diffusion("cosine", 4, "eps", "fixed"))
    levels = torch.cat([training.optimisation._batch(step)[2] for step in range(40)])
    assert levels.bincount().tolist() == pytest.approx([80] * 4, abs=30)


@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_the_loss_of_a_bf16_answer_is_calculated_in_float32(target):
    diffusion = Diffusion("cosine", 1000, target, "fixed")
    torch.manual_seed(0)
    x0, eps, answer = torch.rand(4, 3, 8, 8) * 2 - 1, torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8).bfloat16()
    t = torch.tensor([0, 300, 700, 999])
    loss = diffusion.loss(answer, x0, t, eps)
    assert loss.dtype == torch.float32 and torch.equal(loss, diffusion.loss(answer.float(), x0, t, eps))


@pytest.mark.parametrize(("dropout", "taught"), [(0.0, False), (0.1, True)])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_network_has_a_class_for_none_only_where_label_dropout_teaches_it(params, conditional, dropout, taught):
    params["model"]["conditional"], params["train"]["label_dropout"] = conditional, dropout
    packed = SimpleNamespace(summary={"class_names": ["a", "b", "c"]})
    *_, none_class, _augment_labels = setup.unet_parts(parse_config(params), packed)
    assert none_class == (conditional and taught)
