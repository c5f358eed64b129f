"""Each parameter of a training reaches the place that it is meant for, and each random stream is its own."""

import numpy as np
import pytest
import torch

from ddpm.training import loop
from ddpm.training.batches import BatchOrder, generator
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


def test_the_average_is_measured_without_dropout(tiny_model):
    images = disks(8)
    training = make(tiny_model.model_copy(update={"dropout": 0.5}), images, images, batch_size=8)
    torch.nn.init.normal_(training.ema.model.head[-1].weight, std=0.1)
    training.train_step(0)
    assert not training.ema.model.training and training.heldout_loss() == training.heldout_loss()


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
