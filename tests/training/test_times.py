"""Which noise levels a batch has, and what else a training changes on its way: rate and average."""

import numpy as np
import pytest
import torch

from ddpm.diffusion.process import Diffusion
from ddpm.training.ema import Ema, exponent
from ddpm.training.times import WIDTH, draws
from tests.support.trainings import Recorder, disks, make

SCHEDULES = ("linear", "cosine", "sigmoid")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_around_log_snr_0_the_levels_follow_laplace(schedule):
    """Hang et al. 2024: quantiles of log-SNR are those of a Laplace distribution around 0, whatever the schedule."""
    diffusion = Diffusion(schedule, 1000, "v")
    torch.manual_seed(0)
    log_snr = diffusion.alphas_cumprod.logit()[draws("logsnr", diffusion)(200_000)]
    for part in (0.05, 0.25, 0.5, 0.75, 0.95):
        exact = float(torch.distributions.Laplace(0.0, WIDTH).icdf(torch.tensor(part)))
        assert log_snr.quantile(part).item() == pytest.approx(exact, abs=0.03)


def test_every_level_can_be_drawn_and_none_beyond():
    diffusion = Diffusion("cosine", 4, "v")
    torch.manual_seed(0)
    t = draws("uniform", diffusion)(5000)
    assert t.dtype == torch.int64 and t.unique().tolist() == [0, 1, 2, 3]
    t = draws("logsnr", diffusion)(5000)
    assert t.dtype == torch.int64 and t.unique().tolist() == [0, 1, 2]  # the last one is noise alone


def test_a_level_stands_for_the_log_snr_between_its_neighbours():
    diffusion = Diffusion("linear", 8, "v")
    torch.manual_seed(0)
    found = torch.bincount(draws("logsnr", diffusion)(50_000), minlength=8) / 50_000
    log_snr = diffusion.alphas_cumprod.logit()
    below = torch.distributions.Laplace(0.0, WIDTH).cdf((log_snr[1:] + log_snr[:-1]) / 2).tolist()
    for t, (upper, lower) in enumerate(zip([1.0, *below], [*below, 0.0], strict=True)):
        assert found[t].item() == pytest.approx(upper - lower, abs=0.01), t


def test_uniform_levels_are_uniform():
    torch.manual_seed(0)
    counts = torch.bincount(draws("uniform", Diffusion("linear", 10, "v"))(50_000), minlength=10)
    assert counts.min() > 4700 and counts.max() < 5300


def test_the_times_of_a_step_are_those_that_the_parameter_names(tiny_model, monkeypatch):
    """The wire from train.timesteps to the loss."""
    spread = {}
    for timesteps in ("uniform", "logsnr"):
        training = make(tiny_model, disks(64), batch_size=64, timesteps=timesteps)
        seen = []
        losses = training.optimisation.losses
        monkeypatch.setattr(
            training.optimisation,
            "losses",
            lambda *given, losses=losses, seen=seen: seen.append(given[3]) or losses(*given),
        )
        for step in range(4):
            training.train_step(step)
        spread[timesteps] = training.diffusion.alphas_cumprod.logit()[torch.cat(seen)].abs().mean().item()
    assert spread["logsnr"] < 0.7 < 2 < spread["uniform"]


def rates(tiny_model, **changes):
    recorder, training = Recorder(), make(tiny_model, disks(16), epochs=20, batch_size=16, log_every=1, **changes)
    found = []
    for step in range(training.steps):
        training.train_step(step)
        found.append(training.optimisation.optimizer.param_groups[0]["lr"])
    assert not recorder.points
    return found


def test_the_learning_rate_stays_unless_it_is_told_to_fall(tiny_model):
    assert rates(tiny_model, lr=1e-3, warmup_steps=4) == pytest.approx([2.5e-4, 5e-4, 7.5e-4] + 17 * [1e-3])


def test_the_learning_rate_falls_in_a_line_over_the_last_part(tiny_model):
    found = rates(tiny_model, lr=1e-3, warmup_steps=0, lr_decay=0.25)
    assert found == pytest.approx(16 * [1e-3] + [8e-4, 6e-4, 4e-4, 2e-4])


@pytest.mark.parametrize("length", [0.05, 0.1, 0.15, 0.25])
def test_the_average_is_as_wide_as_its_length_says(length):
    """Karras et al. 2024, section 3.1: the standard deviation of its weights over the steps, as a part of them."""
    steps, ema = 4000, Ema(torch.nn.Linear(1, 1), 0.9999, length)
    weights = np.zeros(steps)
    for step in range(steps):
        weights *= ema.decay(step)
        weights[step] += 1 - ema.decay(step)
    assert weights.sum() == pytest.approx(1)
    moment = (weights * np.arange(steps)).sum()
    width = np.sqrt((weights * (np.arange(steps) - moment) ** 2).sum()) / steps
    assert width == pytest.approx(length, rel=0.02)


def test_known_exponents():
    """Karras et al. 2024, section 3.1: σ_rel 0.05 and 0.10 are γ 16.97 and 6.94."""
    assert [round(exponent(length), 2) for length in (0.05, 0.10)] == [16.97, 6.94]


def test_without_a_length_the_decay_grows_to_that_of_the_parameter():
    ema = Ema(torch.nn.Linear(1, 1), 0.98)
    assert [ema.decay(step) for step in (0, 8, 10_000)] == pytest.approx([0.1, 0.5, 0.98])


def test_the_first_step_leaves_nothing_of_the_random_weights():
    network = torch.nn.Linear(1, 1)
    ema = Ema(network, 0.9999, 0.1)
    with torch.no_grad():
        network.weight.fill_(5.0)
    ema.update(0)
    assert ema.model.weight.item() == 5.0


def test_the_width_is_that_of_the_paper():
    """Hang et al. 2024: a Laplace density of scale 0.5 over the log-SNR."""
    assert WIDTH == 0.5
