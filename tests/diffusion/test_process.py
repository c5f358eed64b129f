import pytest
import torch

from ddpm.diffusion.process import Diffusion, posterior

SCHEDULES = ["linear", "cosine", "sigmoid"]
TARGETS = ["eps", "v", "x0"]


@pytest.fixture
def x0():
    return torch.rand(8, 3, 4, 4) * 2 - 1


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("t", [0, 400, 999])
def test_forward_process_has_its_moments(schedule, t):
    diffusion = Diffusion(schedule, 1000, "eps")
    x0 = torch.full((20_000, 1, 2, 2), 0.7)
    x_t = diffusion.add_noise(x0, torch.full((20_000,), t), torch.randn_like(x0))
    level = diffusion.alphas_cumprod[t].item()
    error = (1 - level) ** 0.5 / 80_000**0.5  # standard error of the mean
    assert x_t.mean().item() == pytest.approx(0.7 * level**0.5, abs=5 * error)
    assert x_t.var().item() == pytest.approx(1 - level, rel=0.03)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_jump_equals_many_small_steps(schedule):
    """q(x_t | x_0) of eq. 4 is the product of the q(x_t | x_{t-1}) of eq. 2."""
    diffusion = Diffusion(schedule, 50, "eps")
    mean, variance = 1.0, 0.0
    for t in range(50):
        beta = 1 - diffusion.alpha_cumprod(t) / diffusion.alpha_cumprod(t - 1)
        mean, variance = mean * (1 - beta) ** 0.5, variance * (1 - beta) + beta
        assert mean == pytest.approx(diffusion.alpha_cumprod(t) ** 0.5, rel=1e-9)
        assert variance == pytest.approx(1 - diffusion.alpha_cumprod(t), rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
def test_round_trip_from_target_to_x0_and_eps(schedule, target, x0):
    diffusion = Diffusion(schedule, 1000, target)
    t, eps = torch.linspace(0, 900, 8).long(), torch.randn_like(x0)
    x_t = diffusion.add_noise(x0, t, eps)
    recovered = diffusion.predict_x0(diffusion.target_of(x0, t, eps), x_t, t)
    assert torch.allclose(recovered, x0, atol=2e-5)
    alpha, sigma = diffusion.alpha_sigma(t)
    # At the least noise, ε is a small difference of large numbers: 1e-2 is what float32 leaves of it.
    assert torch.allclose((x_t - alpha * recovered) / sigma, eps, atol=1e-2)


def test_v_is_the_rotation_of_image_and_noise(x0):
    """Salimans & Ho 2022, appendix D: x_t = α x_0 + σ ε and v = α ε - σ x_0, so ε = σ x_t + α v."""
    diffusion = Diffusion("cosine", 1000, "v")
    t, eps = torch.linspace(0, 999, 8).long(), torch.randn_like(x0)
    alpha, sigma = diffusion.alpha_sigma(t)
    v, x_t = diffusion.target_of(x0, t, eps), diffusion.add_noise(x0, t, eps)
    assert torch.allclose(sigma * x_t + alpha * v, eps, atol=1e-5)
    assert torch.allclose(alpha * x_t - sigma * v, x0, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_loss_is_zero_for_a_perfect_answer_and_one_per_unit_of_error(target, x0):
    diffusion = Diffusion("cosine", 1000, target)
    t, eps = torch.arange(8) * 100, torch.randn_like(x0)
    perfect = diffusion.target_of(x0, t, eps)
    assert torch.equal(diffusion.loss(perfect, x0, t, eps), torch.zeros(8))
    assert torch.allclose(diffusion.loss(perfect + 1, x0, t, eps), torch.ones(8), atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("t", "s"), [(1, 0), (500, 499), (999, 998), (999, 400), (700, 20)])
def test_posterior_equals_bayes_rule(schedule, t, s):
    """q(x_s | x_t, x_0) is proportional to q(x_t | x_s) q(x_s | x_0): multiply the two Gaussians."""
    diffusion = Diffusion(schedule, 1000, "eps")
    x0, x_t = 0.3, -0.8
    level_t, level_s = diffusion.alpha_cumprod(t), diffusion.alpha_cumprod(s)
    alpha = level_t / level_s
    precision = 1 / (1 - level_s) + alpha / (1 - alpha)
    mean = (level_s**0.5 * x0 / (1 - level_s) + alpha**0.5 * x_t / (1 - alpha)) / precision
    posterior = diffusion.posterior(t, s)
    assert posterior.x0_weight * x0 + posterior.xt_weight * x_t == pytest.approx(mean, rel=1e-9)
    assert posterior.variance == pytest.approx(1 / precision, rel=1e-9)
    assert posterior.variance <= posterior.beta == pytest.approx(1 - alpha, rel=1e-12)


def test_learned_variance_takes_the_second_half_of_the_channels():
    diffusion = Diffusion("cosine", 1000, "eps", "learned")
    assert diffusion.output_channels == 6 and Diffusion("cosine", 1000, "eps").output_channels == 3
    output = torch.randn(2, 6, 4, 4)
    prediction, v = diffusion.split(output)
    assert torch.equal(prediction, output[:, :3]) and torch.equal(v, (output[:, 3:] + 1) / 2)
    assert Diffusion("cosine", 1000, "eps").split(prediction)[1] is None
    _, v = diffusion.split(output.bfloat16())
    assert v.dtype == torch.float32 and torch.equal(v, (output[:, 3:].bfloat16().float() + 1) / 2)


def test_tensors_and_numbers_have_the_same_way_back():
    diffusion = Diffusion("cosine", 1000, "eps")
    levels = diffusion.alphas_cumprod
    many = posterior(levels[1:], levels[:-1])
    for t in (1, 500, 999):
        one = diffusion.posterior(t, t - 1)
        for name in ("x0_weight", "xt_weight", "variance", "beta"):
            assert getattr(many, name)[t - 1].item() == pytest.approx(getattr(one, name), rel=1e-12)


def test_the_least_noise_is_exact():
    """1 - ᾱ of float32 would keep three digits of it."""
    diffusion = Diffusion("linear", 100_000, "eps")
    _, sigma = diffusion.alpha_sigma(torch.tensor([0]))
    assert sigma.item() == pytest.approx((1 - diffusion.alpha_cumprod(0)) ** 0.5, rel=1e-6)


def test_half_log_snr_is_finite_but_for_the_clean_image():
    diffusion = Diffusion("cosine", 1000, "eps")
    values = [diffusion.half_log_snr(t) for t in range(-1, 1000)]
    assert values[0] == float("inf") and values == sorted(values, reverse=True) and values[-1] > -12
    assert values[500] == pytest.approx(0.5 * torch.logit(diffusion.alphas_cumprod[499]).item(), rel=1e-12)


def test_last_step_back_is_the_image_itself():
    posterior = Diffusion("linear", 1000, "eps").posterior(0, -1)
    assert (posterior.x0_weight, posterior.xt_weight, posterior.variance) == (pytest.approx(1), 0, 0)
