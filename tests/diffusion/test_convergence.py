"""Samplers against exact solutions: of data whose best denoiser is known, every sampler must converge at its order.

The samplers run without clipping, in float64, over a fixed stretch of λ = log(α/σ); T is so large that the snapping to
whole time steps does not matter.
"""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from ddpm.diffusion.process import Diffusion
from ddpm.diffusion.samplers import SAMPLERS, SPACINGS, ddim, ddpm, dpmpp_2m

COUNTS = [20, 40, 80, 160, 320]
MEAN, STD = 0.4, 0.3
CENTRES, WIDTH = (-0.7, 0.5), 0.25  # of a mixture of two equally likely Gaussians


@pytest.fixture(scope="module", params=["linear", "cosine"])
def diffusion(request):
    return Diffusion(request.param, 100_000, "x0")


def steps_between(diffusion, start, stop, count):
    """`count` steps and the end of the last: evenly spaced in λ from `start` to `stop`."""
    rising = 0.5 * torch.logit(diffusion.alphas_cumprod.flip(0)).numpy()
    times = np.interp(np.linspace(start, stop, count + 1), rising, np.arange(diffusion.timesteps)[::-1])
    return times.round().astype(int).tolist()


def spread(diffusion, t, std):
    """Standard deviation of x_t around α_t times the mean of images N(mean, std²)."""
    return (diffusion.alpha_cumprod(t) * std**2 + 1 - diffusion.alpha_cumprod(t)) ** 0.5


def denoise_gaussian(diffusion, x, t, mean, std):
    """E[x_0 | x_t] for images N(mean, std²)."""
    alpha = diffusion.alpha_cumprod(t) ** 0.5
    return mean + alpha * std**2 / spread(diffusion, t, std) ** 2 * (x - alpha * mean)


def gaussian(diffusion):
    """The best denoiser of images N(MEAN, STD²)."""
    return lambda x, t: (denoise_gaussian(diffusion, x, t, MEAN, STD), None)


def mixture(diffusion):
    """The best denoiser of the mixture: those of its parts, weighted by how likely x_t came from each."""

    def denoise(x, t):
        distances = torch.stack([x - diffusion.alpha_cumprod(t) ** 0.5 * centre for centre in CENTRES])
        weights = torch.softmax(-0.5 * (distances / spread(diffusion, t, WIDTH)) ** 2, dim=0)
        images = torch.stack([denoise_gaussian(diffusion, x, t, centre, WIDTH) for centre in CENTRES])
        return (weights * images).sum(dim=0), None

    return denoise


def at_end(sampler, denoise, diffusion, x, steps, noise=None):
    """What a sampler makes of x on its way to steps[-1]; the step from there to the image is left out."""
    *_, last, _ = sampler(denoise, diffusion, x, steps, noise)
    return last


def order(errors):
    """Slope of the errors at COUNTS over the step size, both logarithmic."""
    return -np.polyfit(np.log(COUNTS), np.log(errors), 1)[0]


@pytest.mark.parametrize(("sampler", "expected"), [(ddim, 1), (dpmpp_2m, 2)])
def test_order_on_a_gaussian(diffusion, sampler, expected):
    """The ODE keeps every x at the same number of standard deviations from the mean."""

    def error(count):
        steps = steps_between(diffusion, -4, 4, count)
        (mean0, std0), (mean1, std1) = (
            (diffusion.alpha_cumprod(t) ** 0.5 * MEAN, spread(diffusion, t, STD)) for t in (steps[0], steps[-1])
        )
        deviations = torch.tensor([-2.0, -1.0, 0.5, 1.0, 3.0], dtype=torch.float64)
        x = at_end(sampler, gaussian(diffusion), diffusion, mean0 + std0 * deviations, steps)
        return (x - mean1 - std1 * deviations).abs().max().item()

    assert order([error(count) for count in COUNTS]) == pytest.approx(expected, abs=0.1)


def mixture_cdf(diffusion, x, t):
    return np.mean(
        [stats.norm.cdf(x, diffusion.alpha_cumprod(t) ** 0.5 * c, spread(diffusion, t, WIDTH)) for c in CENTRES], axis=0
    )


@pytest.mark.parametrize(("sampler", "expected"), [(ddim, 1), (dpmpp_2m, 2)])
def test_order_on_a_mixture(diffusion, sampler, expected):
    """In one dimension paths of the ODE do not cross, so every x keeps its quantile."""
    first, *_, last = steps_between(diffusion, -2, 2, 10)
    start = np.array([-2.2, -1.1, -0.3, 0.4, 1.3, 2.0])
    quantiles = mixture_cdf(diffusion, start, first)
    exact = [optimize.brentq(lambda x, q=q: mixture_cdf(diffusion, x, last) - q, -9, 9, xtol=1e-12) for q in quantiles]

    def error(count):
        steps = steps_between(diffusion, -2, 2, count)
        x = at_end(sampler, mixture(diffusion), diffusion, torch.from_numpy(start), steps)
        return np.abs(x.numpy() - exact).max()

    assert order([error(count) for count in COUNTS]) == pytest.approx(expected, abs=0.1)


def moments(sampler, diffusion, count):
    """Of a sampler on the Gaussian: what is left of x at the end, and the variance there; beside them the exact values.

    Sampler and denoiser are linear in x and in every draw of noise, so all of it follows from a run on unit vectors.
    """
    steps = steps_between(diffusion, -3, 3, count)
    units = torch.cat([torch.zeros(1, count + 1), torch.eye(count + 1)]).double()  # nothing; x alone; each noise alone
    columns = iter(units.T)
    x = at_end(sampler, gaussian(diffusion), diffusion, next(columns), steps, lambda: next(columns))
    left, *noise_gains = (x[1:] - x[0]).tolist()
    start, end = (spread(diffusion, t, STD) ** 2 for t in (steps[0], steps[-1]))
    # Bayes: E[x_s | x_t] has the slope Cov(x_s, x_t) / Var(x_t), and the covariance is α_t / α_s Var(x_s).
    exactly_left = (diffusion.alpha_cumprod(steps[0]) / diffusion.alpha_cumprod(steps[-1])) ** 0.5 * end / start
    return left, left**2 * start + sum(gain**2 for gain in noise_gains), exactly_left, end


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (ddpm, 1),
        (partial(ddpm, variance="large"), 1),
        (partial(ddim, eta=1.0), 1),
        # A step feeds none of its own noise back through the image, but the extrapolation of the next step takes half a
        # step of it too much: in the variance of a linear problem the two make up for each other to the second order.
        (SAMPLERS["dpmpp_2m_sde"], 2),
    ],
    ids=["ddpm small", "ddpm large", "ddim eta 1", "2M SDE"],
)
def test_weak_order_on_a_gaussian(diffusion, sampler, expected):
    """These follow the reversed process, whose E[x_0 | x_t] is a martingale: the mean is right at any step size."""
    errors = []
    for count in COUNTS:
        left, variance, exactly_left, exact_variance = moments(sampler, diffusion, count)
        assert left == pytest.approx(exactly_left, abs=1e-12)
        errors.append(abs(variance - exact_variance))
    assert order(errors) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("eta", [0.3, 0.7])
def test_ddim_reaches_the_variance_with_any_eta(diffusion, eta):
    """Song et al. 2021, appendix B: x_t has the same distribution for all of them, though they take other ways."""
    results = [moments(partial(ddim, eta=eta), diffusion, count) for count in COUNTS]
    assert order([abs(variance - exact) for _, variance, _, exact in results]) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
def test_second_order_needs_fewer_steps_for_a_whole_image(schedule):
    """From x_T to the image with T = 1000, against the true ends of the paths."""
    diffusion = Diffusion(schedule, 1000, "x0")
    deviations = torch.tensor([-2.0, -1.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    start = diffusion.alpha_cumprod(999) ** 0.5 * MEAN + spread(diffusion, 999, STD) * deviations

    def error(sampler, spacing, count):
        *_, x = sampler(gaussian(diffusion), diffusion, start, SPACINGS[spacing](diffusion, count), None)
        return (x - MEAN - STD * deviations).abs().max().item()

    for spacing in SPACINGS:
        assert error(ddim, spacing, 1000) < 0.005 and error(dpmpp_2m, spacing, 1000) < 0.0015
    assert error(dpmpp_2m, "trailing", 20) < 0.7 * error(ddim, "trailing", 20)
    assert error(dpmpp_2m, "logsnr", 20) < 0.15 * min(error(ddim, spacing, 20) for spacing in SPACINGS)
