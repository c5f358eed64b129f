import math

import pytest
import torch
from diffusers import DDPMScheduler

from ddpm.diffusion.schedules import MAX_BETA, SCHEDULES


def betas(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    previous = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])
    return 1 - alphas_cumprod / previous


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("timesteps", [2, 10, 100, 1000, 4000])
def test_signal_falls_and_betas_stay_in_range(name, timesteps):
    schedule = SCHEDULES[name](timesteps)
    assert schedule.shape == (timesteps,) and schedule.dtype == torch.float64
    assert schedule[-1] > 0 and schedule[0] < 1
    assert (schedule.diff() < 0).all()
    assert (betas(schedule) > 0).all() and (betas(schedule) <= MAX_BETA + 1e-12).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_starts_almost_clean_and_ends_almost_noise(name):
    schedule = SCHEDULES[name](1000)
    assert schedule[0] > 0.999
    assert schedule[-1] < 5e-5  # linear: 4.0e-5, as published


@pytest.mark.parametrize(("ours", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_equals_diffusers(ours, theirs):
    reference = DDPMScheduler(num_train_timesteps=1000, beta_schedule=theirs).alphas_cumprod
    assert torch.allclose(SCHEDULES[ours](1000).float(), reference, rtol=2e-4, atol=1e-7)  # theirs is float32


def test_linear_betas_are_those_of_the_paper():
    beta = betas(SCHEDULES["linear"](1000))
    assert beta[0].item() == pytest.approx(1e-4, rel=1e-9)
    assert beta[-1].item() == pytest.approx(0.02, rel=1e-9)


def test_linear_keeps_its_total_noise_at_other_step_counts():
    ends = [math.log(SCHEDULES["linear"](t)[-1]) for t in (500, 1000, 4000)]
    assert max(ends) - min(ends) < 0.2


def test_cosine_follows_its_closed_form_before_the_cap():
    t = torch.arange(1, 901, dtype=torch.float64) / 1000

    def signal(u):
        return torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = signal(t) / signal(torch.zeros(1, dtype=torch.float64))
    assert torch.allclose(SCHEDULES["cosine"](1000)[:900], expected, rtol=1e-9)


def test_sigmoid_is_symmetric():
    schedule = SCHEDULES["sigmoid"](1000)
    # ᾱ(u) + ᾱ(1 - u) = 1 for a sigmoid from -3 to 3; index t holds u = (t + 1) / 1000.
    assert torch.allclose(schedule[99:499] + schedule[899 - torch.arange(400)], torch.ones(400).double(), atol=1e-9)


def test_the_last_beta_of_a_schedule_that_ends_in_noise_is_0_999():
    """Nichol & Dhariwal 2021, section 3.2."""
    for name in ("cosine", "sigmoid"):
        assert betas(SCHEDULES[name](1000))[-1].item() == pytest.approx(0.999, abs=1e-9)


def test_sigmoid_follows_its_closed_form_before_the_cap():
    """Jabri et al. 2022, algorithm 1, with start -3, end 3 and tau 1."""
    t = torch.arange(1, 951, dtype=torch.float64) / 1000
    first, here, last = (torch.sigmoid(torch.as_tensor(x, dtype=torch.float64)) for x in (-3, 6 * t - 3, 3))
    torch.testing.assert_close(SCHEDULES["sigmoid"](1000)[:950], (last - here) / (last - first), rtol=1e-9, atol=0)
