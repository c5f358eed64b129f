from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from ddpm import config
from ddpm.diffusion.process import Diffusion
from ddpm.diffusion.samplers import MIN_HALF_LOG_SNR, SAMPLERS, SPACINGS, ddim, ddpm, logsnr, trailing, uniform

SHAPE = (2, 3, 4, 4)
SCHEDULES = ["linear", "cosine"]
TARGETS = ["eps", "v", "x0"]
RUNS = [*((target, count) for target in ("eps", "v") for count in (10, 20, 50, 1000)), ("x0", 20)]
THEIR_NAMES = {"linear": "linear", "cosine": "squaredcos_cap_v2", "eps": "epsilon", "v": "v_prediction", "x0": "sample"}


class RecordedNoise:
    """Noise that can be drawn a second time."""

    def __init__(self, draws: int):
        self.draws = torch.randn(draws, *SHAPE)
        self.next = 0

    def __call__(self):
        self.next += 1
        return self.draws[self.next - 1]


def some_network(x, t):
    return torch.sin(3 * x) * 0.5 + t / 2000


def clipped(diffusion, output=some_network):
    """The `denoise` that `DiffusionModel` makes of a network."""

    def denoise(x, t):
        prediction, v = diffusion.split(output(x, t))
        return diffusion.predict_x0(prediction, x, torch.full((len(x),), t)).clamp(-1, 1), v

    return denoise


def in_float64(reference, diffusion):
    """Let their scheduler calculate with the float64 schedule; float32 is wrong in the fourth digit near t = 0."""
    reference.alphas_cumprod = diffusion.alphas_cumprod
    return reference


def test_config_names_every_sampler_and_spacing():
    assert set(get_args(config.Sampler)) == set(SAMPLERS)
    assert set(get_args(config.Spacing)) == set(SPACINGS)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("timesteps", [2, 37, 1000])
def test_steps_descend_from_the_noisiest_for_every_count(spacing, schedule, timesteps):
    diffusion = Diffusion(schedule, timesteps, "eps")
    for count in range(1, timesteps + 1) if timesteps < 1000 else (1, 2, 3, 7, 20, 50, 333, 500, 998, 999, 1000):
        steps = SPACINGS[spacing](diffusion, count)
        assert len(steps) == count and steps[0] == timesteps - 1 and steps[-1] >= 0
        assert (np.diff(steps) < 0).all() and all(isinstance(t, int) for t in steps)


def test_spacings_are_what_their_names_say():
    diffusion = Diffusion("linear", 1000, "eps")
    assert trailing(diffusion, 4) == [999, 749, 499, 249]
    assert uniform(diffusion, 4) == [999, 666, 333, 0]
    assert trailing(diffusion, 7) == [999, 856, 713, 570, 428, 285, 142]  # rounded where they do not divide
    assert uniform(diffusion, 8) == [999, 856, 714, 571, 428, 285, 143, 0]
    steps = logsnr(diffusion, 10)
    gaps = np.diff([diffusion.half_log_snr(t) for t in steps])
    assert steps[-1] == 0 and gaps.max() - gaps.min() < 0.2 * gaps.mean()


def test_few_steps_are_lost_to_the_end_of_the_cosine_schedule():
    diffusion = Diffusion("cosine", 1000, "eps")
    assert diffusion.half_log_snr(999) < 2 * MIN_HALF_LOG_SNR + 1
    assert sum(diffusion.half_log_snr(t) < MIN_HALF_LOG_SNR for t in logsnr(diffusion, 20)) <= 2


def test_ddim_with_eta_1_equals_ancestral_sampling():
    """Song et al. 2021, eq. 16, and the sentence below it."""
    diffusion = Diffusion("cosine", 1000, "eps")
    denoise, steps, x = clipped(diffusion), trailing(diffusion, 40), torch.randn(SHAPE)
    noise = RecordedNoise(40)
    ancestral = list(ddpm(denoise, diffusion, x, steps, noise))
    again = RecordedNoise(40)
    again.draws = noise.draws
    implicit = list(ddim(denoise, diffusion, x, steps, again, eta=1.0))
    for ours, theirs in zip(ancestral, implicit, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("target", "count"), RUNS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_step_equals_diffusers(schedule, target, eta, count):
    diffusion = Diffusion(schedule, 1000, target)
    reference = DDIMScheduler(
        beta_schedule=THEIR_NAMES[schedule],
        prediction_type=THEIR_NAMES[target],
        clip_sample=True,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    reference = in_float64(reference, diffusion)
    reference.set_timesteps(count)
    steps = trailing(diffusion, count)
    assert reference.timesteps.tolist() == steps
    x, noise = torch.randn(SHAPE), RecordedNoise(count)
    mine = ddim(clipped(diffusion), diffusion, x, steps, noise, eta)
    for i, (t, ours) in enumerate(zip(steps, mine, strict=True)):
        x = reference.step(
            some_network(x, t), t, x, eta=eta, use_clipped_model_output=True, variance_noise=noise.draws[i]
        ).prev_sample
        assert (ours - x).abs().max() < 1e-5, f"step {t}"
        x = ours


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("target", "count"), RUNS)
@pytest.mark.parametrize(
    ("variance", "theirs"), [("small", "fixed_small"), ("large", "fixed_large"), ("learned", "learned_range")]
)
def test_ancestral_step_equals_diffusers(monkeypatch, schedule, target, variance, theirs, count):
    learned = variance == "learned"
    diffusion = Diffusion(schedule, 1000, target, "learned" if learned else "fixed")
    reference = DDPMScheduler(
        beta_schedule=THEIR_NAMES[schedule],
        prediction_type=THEIR_NAMES[target],
        variance_type=theirs,
        clip_sample=True,
        timestep_spacing="trailing",
    )
    reference = in_float64(reference, diffusion)
    reference.set_timesteps(count)
    steps = trailing(diffusion, count)
    assert reference.timesteps.tolist() == steps
    noise = RecordedNoise(count)
    draws = iter(noise.draws)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *args, **kwargs: next(draws))

    def network(x, t):
        return torch.cat([some_network(x, t), torch.cos(2 * x)], dim=1) if learned else some_network(x, t)

    x = torch.randn(SHAPE)
    mine = ddpm(clipped(diffusion, network), diffusion, x, steps, noise, variance)
    for t, ours in zip(steps, mine, strict=True):
        if t == steps[-1] > 0:
            break  # into the image theirs takes noise along, unless it comes from t = 0; ours is tested below
        expected = reference.step(network(x, t), t, x).prev_sample
        assert (ours - expected).abs().max() < 1e-5, f"step {t}"
        x = ours


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("sampler", "theirs"), [("dpmpp_2m", "dpmsolver++"), ("dpmpp_2m_sde", "sde-dpmsolver++")])
@pytest.mark.parametrize(
    ("spacing", "target", "count"),
    [*(("trailing", *run) for run in RUNS), ("uniform", "eps", 20), ("logsnr", "eps", 20), ("logsnr", "v", 50)],
)
def test_dpm_solver_step_equals_diffusers(schedule, target, sampler, theirs, count, spacing):
    diffusion = Diffusion(schedule, 1000, target)
    reference = DPMSolverMultistepScheduler(
        beta_schedule=THEIR_NAMES[schedule],
        prediction_type=THEIR_NAMES[target],
        algorithm_type=theirs,
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        final_sigmas_type="zero",
        thresholding=True,  # the hook by which the images that they predict are clipped as ours are
    )
    reference._threshold_sample = lambda x0: x0.clamp(-1, 1)
    steps = SPACINGS[spacing](diffusion, count)
    reference.set_timesteps(timesteps=steps)
    # Theirs are float32; everything that they calculate with follows from these.
    levels = diffusion.alphas_cumprod[steps]
    reference.sigmas = torch.cat([((1 - levels) / levels).sqrt(), torch.zeros(1)])
    x, noise = torch.randn(SHAPE), RecordedNoise(count)
    mine = SAMPLERS[sampler](clipped(diffusion), diffusion, x, steps, noise)
    for i, (t, ours) in enumerate(zip(steps, mine, strict=True)):
        x = reference.step(some_network(x, t), t, x, variance_noise=noise.draws[i]).prev_sample
        assert (ours - x).abs().max() < 1e-5, f"step {t}"
        x = ours


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("variance", ["fixed", "learned"])
def test_last_step_is_the_image_that_the_network_sees(sampler, schedule, target, variance):
    """Of every sampler, also with a network that says a variance; nothing on the way may be NaN or far away."""
    diffusion, seen = Diffusion(schedule, 1000, target, variance), []

    def network(x, t):
        return torch.cat([some_network(x, t), x], dim=1) if variance == "learned" else some_network(x, t)

    def denoise(x, t):
        seen.append(clipped(diffusion, network)(x, t))
        return seen[-1]

    for count in (1, 2, 8):
        xs = list(
            SAMPLERS[sampler](
                denoise, diffusion, torch.randn(SHAPE), trailing(diffusion, count), lambda: torch.randn(SHAPE)
            )
        )
        assert len(xs) == count and torch.stack(xs).abs().max() < 20
        assert torch.allclose(xs[-1], seen[-1][0], atol=1e-6)


def test_learned_variance_lies_between_its_bounds():
    """v 0 is the small variance and v 1 the large one, also over skipped steps (Nichol & Dhariwal 2021, eq. 15, 19)."""
    diffusion = Diffusion("cosine", 1000, "eps", "learned")
    steps, x, noise = trailing(diffusion, 10), torch.randn(SHAPE), torch.randn(10, *SHAPE)

    def run(variance, v):
        draws = iter(noise)
        return list(
            ddpm(lambda x, t: (x.tanh(), torch.full(SHAPE, v)), diffusion, x, steps, lambda: next(draws), variance)
        )

    for v, bound in ((0.0, "small"), (1.0, "large")):
        for ours, expected in zip(run("learned", v), run(bound, v), strict=True):
            assert torch.allclose(ours, expected, atol=1e-5)
    assert not torch.allclose(run("learned", 0.5)[0], run("small", 0.5)[0], atol=1e-2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_coefficients_are_exact_for_an_image_that_is_known(sampler):
    """With the true image at hand, x of every step must have the level of that step, which is q(x_s | x_0)."""
    diffusion, x0 = Diffusion("cosine", 1000, "x0"), 0.5
    steps = trailing(diffusion, 30)
    start = torch.randn(50_000, 1, 1, 1)
    x = diffusion.alpha_cumprod(999) ** 0.5 * x0 + (1 - diffusion.alpha_cumprod(999)) ** 0.5 * start
    run = SAMPLERS[sampler](
        lambda x, t: (torch.full_like(x, x0), None), diffusion, x, steps, lambda: torch.randn_like(start)
    )
    for s, x in zip([*steps[1:], -1], run, strict=True):
        level = diffusion.alpha_cumprod(s)
        assert x.mean().item() == pytest.approx(level**0.5 * x0, abs=0.02)
        assert x.std().item() == pytest.approx((1 - level) ** 0.5, rel=0.02, abs=1e-6)
