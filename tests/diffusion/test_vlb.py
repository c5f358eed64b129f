import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from ddpm.data.pixels import from_uint8
from ddpm.diffusion.process import Diffusion
from ddpm.diffusion.vlb import bound, discretized_log_likelihood, gaussian_kl

TARGETS = ["eps", "v", "x0"]
SCHEDULES = ["linear", "cosine", "sigmoid"]


@pytest.mark.parametrize(
    ("mean1", "std1", "mean2", "std2"), [(0.0, 1.0, 0.5, 2.0), (0.3, 0.01, 0.31, 0.02), (1.0, 0.5, 1.0, 0.5)]
)
def test_kl_equals_its_integral(mean1, std1, mean2, std2):
    p, q = stats.norm(mean1, std1), stats.norm(mean2, std2)
    expected, _ = integrate.quad(
        lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), mean1 - 12 * std1, mean1 + 12 * std1, points=[mean1]
    )
    logs = torch.tensor([2 * math.log(std1), 2 * math.log(std2)])
    assert gaussian_kl(torch.tensor(mean1 - mean2), *logs).item() == pytest.approx(expected, abs=1e-5, rel=1e-4)


@pytest.mark.parametrize("mean", [-1.0, -0.3, 0.004, 0.97])
@pytest.mark.parametrize("std", [0.004, 0.01, 0.1, 1.0])
def test_likelihood_of_a_pixel_value_is_the_mass_around_it(mean, std):
    values = from_uint8(torch.arange(256, dtype=torch.uint8))
    ours = discretized_log_likelihood(values, torch.tensor(mean), torch.tensor(2 * math.log(std))).double().numpy()
    assert np.exp(ours).sum() == pytest.approx(1, abs=1e-4)
    middles = (values[1:].double() + values[:-1].double()).numpy() / 2
    edges = np.concatenate([[mean - 40 * std], middles, [mean + 40 * std]])
    for value in np.flatnonzero(np.abs(values.numpy() - mean) < 6 * std)[::7]:
        mass, _ = integrate.quad(stats.norm(mean, std).pdf, *edges[value : value + 2], points=[mean], epsabs=0)
        assert ours[value] == pytest.approx(math.log(mass), rel=1e-3, abs=1e-4)


def test_likelihood_far_away_is_finite_and_has_a_gradient():
    log_variance = torch.full((3,), -9.0, requires_grad=True)
    ours = discretized_log_likelihood(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([50.0, -50.0, -50.0]), log_variance)
    ours.sum().backward()
    assert ours.isfinite().all() and (ours < -1e6).all() and log_variance.grad.isfinite().all()


def case(schedule, target, timesteps=1000):
    diffusion = Diffusion(schedule, timesteps, target, "learned")
    t = torch.tensor([0, 1, 2, 30, 500, 900, 998, 999])
    x0 = from_uint8(torch.randint(256, (8, 3, 4, 4), dtype=torch.uint8))
    x0[..., 0, 0], x0[..., 0, 1] = -1, 1
    eps = torch.randn_like(x0)
    return diffusion, t, x0, eps, diffusion.add_noise(x0, t, eps)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
def test_perfect_network_costs_nothing_but_the_last_pixels(schedule, target):
    """With the true image and the small variance both Gaussians are the same, so each KL is 0."""
    diffusion, t, x0, eps, x_t = case(schedule, target)
    perfect = diffusion.target_of(x0, t, eps)
    terms = bound(diffusion, perfect, torch.zeros_like(x0), x0, x_t, t)
    assert torch.allclose(terms[1:], torch.zeros(7), atol=1e-4)
    assert 0 < terms[0] < 2.1  # bits: the small variance is about that of a pixel value's surroundings
    for v in (-0.5, 0.5, 1.0):
        assert (bound(diffusion, perfect, torch.full_like(x0, v), x0, x_t, t)[1:] > -1e-6).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("v", [0.0, 0.3, 1.0])
def test_term_equals_the_closed_form_in_bits(schedule, v):
    diffusion, t, x0, _, x_t = case(schedule, "x0")
    guess = (x0 + 0.2 * torch.randn_like(x0)).clamp(-1, 1)
    terms = bound(diffusion, guess, torch.full_like(x0, v), x0, x_t, t).tolist()
    for i in range(1, 8):
        back = diffusion.posterior(int(t[i]), int(t[i]) - 1)
        true, said = back.variance, back.variance ** (1 - v) * back.beta**v
        squared = (back.x0_weight**2 * (x0[i] - guess[i]).double() ** 2).mean().item()
        nats = math.log((said / true) ** 0.5) + (true + squared) / (2 * said) - 0.5
        assert terms[i] == pytest.approx(nats / math.log(2), rel=1e-3, abs=1e-5)
    said = diffusion.posterior(1, 0).variance ** (1 - v) * diffusion.posterior(0, -1).beta ** v
    mean, values = guess[0].double().numpy(), x0[0].double().numpy()
    upper = np.where(values > 0.999, 1, stats.norm.cdf(values + 1 / 255, mean, said**0.5))
    lower = np.where(values < -0.999, 0, stats.norm.cdf(values - 1 / 255, mean, said**0.5))
    likely = upper - lower > 1e-9
    ours = -discretized_log_likelihood(x0[0], guess[0], torch.tensor(math.log(said))).numpy() / math.log(2)
    assert np.allclose(ours[likely], -np.log2((upper - lower)[likely]), rtol=1e-2)
    assert terms[0] == pytest.approx(ours.mean(), rel=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("timesteps", [2, 10, 1000, 100_000])
def test_small_variance_is_least_at_step_1(schedule, timesteps):
    """`bound` relies on it where it replaces the variance 0 of step 0."""
    diffusion = Diffusion(schedule, timesteps, "eps")
    steps = range(1, timesteps, max(1, timesteps // 1000))
    variances = [diffusion.posterior(t, t - 1).variance for t in steps]
    assert min(variances) == variances[0] > 0


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gradient_reaches_the_variance_and_not_the_mean(schedule, target):
    """Also where an untrained network's image of pure noise is tens of thousands of grey levels off."""
    diffusion, t, x0, _, x_t = case(schedule, target)
    output = torch.randn(8, 6, 4, 4, requires_grad=True)
    prediction, v = diffusion.split(output)
    bound(diffusion, prediction, v, x0, x_t, t).mean().backward()
    mean_gradient, variance_gradient = output.grad.chunk(2, dim=1)
    assert not mean_gradient.any()
    assert variance_gradient.isfinite().all() and variance_gradient.flatten(1).any(dim=1).all()


def test_best_variance_is_where_the_error_says():
    """A network that is wrong by d has its least bound at variance β̃ + (w d)², and L_vlb must lead there."""
    diffusion = Diffusion("linear", 1000, "x0", "learned")
    x0, t = torch.zeros(1, 3, 4, 4), torch.tensor([3])
    back = diffusion.posterior(3, 2)
    v_wanted = 0.6
    said = back.variance ** (1 - v_wanted) * back.beta**v_wanted
    guess = x0 + (said - back.variance) ** 0.5 / back.x0_weight
    v = torch.full_like(x0, 0.1).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        bound(diffusion, guess, v, x0, x0, t).sum().backward()
        optimizer.step()
    assert v.mean().item() == pytest.approx(v_wanted, abs=0.02)
