import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from ddpm import samplers
from ddpm.diffusion import Diffusion

SHAPE = (4, 3, 8, 8)
THEIR_NAMES = {"linear": "linear", "cosine": "squaredcos_cap_v2", "eps": "epsilon", "v": "v_prediction", "x0": "sample"}


class RecordedNoise:
    """Noise that can be drawn a second time."""

    def __init__(self, draws: int):
        self.draws = torch.randn(draws, *SHAPE)
        self.next = 0

    def __call__(self):
        self.next += 1
        return self.draws[self.next - 1]


def clipped(diffusion, output):
    return lambda x, t: diffusion.predict_x0(output(x, t), x, torch.full((len(x),), t)).clamp(-1, 1)


def in_float64(reference, diffusion):
    """Let their scheduler calculate with the float64 schedule; float32 is wrong in the fourth digit near t = 0."""
    reference.alphas_cumprod = diffusion.alphas_cumprod
    return reference


def some_network(x, t):
    return torch.sin(3 * x) * 0.5 + t / 2000


@pytest.mark.parametrize("count", [1, 2, 7, 20, 50, 999, 1000])
def test_steps_descend_from_the_noisiest(count):
    steps = samplers.spaced_steps(1000, count)
    assert len(steps) == count and steps[0] == 999 and steps[-1] >= 0
    assert (np.diff(steps) < 0).all()


def test_ddim_with_eta_1_equals_ancestral_sampling():
    """Song et al. 2021, eq. 16, and the sentence below it."""
    diffusion = Diffusion("cosine", 1000, "eps")
    denoise, steps, x = clipped(diffusion, some_network), samplers.spaced_steps(1000, 40), torch.randn(SHAPE)
    noise = RecordedNoise(40)
    ancestral = list(samplers.ddpm(denoise, diffusion, x, steps, noise))
    again = RecordedNoise(40)
    again.draws = noise.draws
    implicit = list(samplers.ddim(denoise, diffusion, x, steps, again, eta=1.0))
    for ours, theirs in zip(ancestral, implicit, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("target", ["eps", "v", "x0"])
@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("count", [10, 50])
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
    steps = samplers.spaced_steps(1000, count)
    assert reference.timesteps.tolist() == steps
    x, noise = torch.randn(SHAPE), RecordedNoise(count)
    mine = samplers.ddim(clipped(diffusion, some_network), diffusion, x, steps, noise, eta)
    for i, (t, ours) in enumerate(zip(steps, mine, strict=True)):
        x = reference.step(
            some_network(x, t), t, x, eta=eta, use_clipped_model_output=True, variance_noise=noise.draws[i]
        ).prev_sample
        assert torch.allclose(ours, x, atol=1e-5), f"step {t}"
        x = ours


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("target", ["eps", "v", "x0"])
@pytest.mark.parametrize(("variance", "theirs"), [("small", "fixed_small"), ("large", "fixed_large")])
def test_ancestral_step_equals_diffusers(monkeypatch, schedule, target, variance, theirs):
    diffusion = Diffusion(schedule, 1000, target)
    reference = DDPMScheduler(
        beta_schedule=THEIR_NAMES[schedule], prediction_type=THEIR_NAMES[target], variance_type=theirs, clip_sample=True
    )
    reference, noise = in_float64(reference, diffusion), torch.randn(SHAPE)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *args, **kwargs: noise)
    for t in (999, 998, 600, 300, 20, 1, 0):
        x = torch.randn(SHAPE)
        ours = next(
            samplers.ddpm(clipped(diffusion, some_network), diffusion, x, [t, t - 1][: t + 1], lambda: noise, variance)
        )
        expected = reference.step(some_network(x, t), t, x).prev_sample
        assert torch.allclose(ours, expected, atol=1e-5), f"step {t}"


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_exact_denoiser_of_a_gaussian_gives_that_gaussian(sampler):
    """For data N(m, s²) the best denoiser is known; sampling with it must return mean and spread of the data."""
    mean, std = 0.4, 0.3
    diffusion = Diffusion("cosine", 1000, "x0")

    def denoise(x, t):
        level = diffusion.level(t)
        gain = level**0.5 * std**2 / (level * std**2 + 1 - level)
        return mean + gain * (x - level**0.5 * mean)

    x = torch.randn(20_000, 1, 1, 1)
    run = getattr(samplers, sampler)(
        denoise, diffusion, x, samplers.spaced_steps(1000, 250), lambda: torch.randn_like(x)
    )
    *_, last = run
    assert last.mean().item() == pytest.approx(mean, abs=0.01)
    assert last.std().item() == pytest.approx(std, rel=0.03)


def test_noise_of_an_image_depends_on_seed_and_index_alone():
    cpu = torch.device("cpu")
    together = samplers.ImageNoise(7, range(4), (3, 8, 8), cpu)
    alone = samplers.ImageNoise(7, [2], (3, 8, 8), cpu)
    for _ in range(3):
        assert torch.equal(together()[2], alone()[0])
    assert not torch.equal(samplers.ImageNoise(8, [2], (3, 8, 8), cpu)(), samplers.ImageNoise(7, [2], (3, 8, 8), cpu)())


def test_noise_is_standard_normal():
    draws = samplers.ImageNoise(0, range(100), (3, 16, 16), torch.device("cpu"))()
    assert draws.mean().abs() < 0.02 and (draws.std() - 1).abs() < 0.02
    flat = draws.flatten(1)
    assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.2  # images share nothing
