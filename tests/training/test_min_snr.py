"""Min-SNR-γ, the weight of the loss by noise level (Hang et al. 2023)."""

from itertools import pairwise

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from ddpm.diffusion.process import Diffusion
from tests.support.trainings import disks, make

SCHEDULES = ["linear", "cosine", "sigmoid"]
TARGETS = ["eps", "v", "x0"]
STEPS = torch.tensor([0, 1, 5, 30, 200, 500, 800, 990])


def snr(diffusion, t):
    return (diffusion.alphas_cumprod[t] / (1 - diffusion.alphas_cumprod[t])).float()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("gamma", [0.1, 5.0])
def test_whatever_the_target_an_error_of_the_image_costs_the_same(schedule, target, gamma):
    """min(SNR, γ) times its square: the paper's weights for the three targets are one loss in three disguises."""
    diffusion = Diffusion(schedule, 1000, target)
    x0, eps, error = torch.rand(8, 3, 4, 4).double(), torch.randn(8, 3, 4, 4), torch.randn(8, 3, 4, 4).double()
    alpha, sigma = (weight.double() for weight in diffusion.alpha_sigma(STEPS))
    x_t, guess = alpha * x0 + sigma * eps, x0 + error
    guessed_eps = (x_t - alpha * guess) / sigma
    answer = {"x0": guess, "eps": guessed_eps, "v": alpha * guessed_eps - sigma * guess}[target]
    weighted = diffusion.min_snr_weight(STEPS, gamma) * diffusion.loss(answer, x0.float(), STEPS, eps)
    expected = snr(diffusion, STEPS).clamp(max=gamma) * error.square().mean(dim=(1, 2, 3))
    # The least error of v is a small difference of numbers near 1: 1e-3 is what float32 leaves of it.
    torch.testing.assert_close(weighted, expected.float(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", ["eps", "v"])
def test_weights_are_those_of_the_scripts_of_diffusers(schedule, target):
    """examples/text_to_image/train_text_to_image.py, which has these two targets."""
    diffusion, t = Diffusion(schedule, 1000, target), torch.arange(1000)
    levels = [diffusion.alpha_cumprod(step) for step in range(-1, 1000)]
    betas = [1 - after / before for before, after in pairwise(levels)]
    theirs = compute_snr(DDPMScheduler(trained_betas=betas), t)
    weights = torch.stack([theirs, 5.0 * torch.ones_like(t)], dim=1).min(dim=1)[0]
    weights = weights / theirs if target == "eps" else weights / (theirs + 1)
    torch.testing.assert_close(diffusion.min_snr_weight(t, 5.0), weights, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_limits(schedule):
    """Without a bound, the image is weighted by SNR, and the noise not at all; with a low one, all images alike."""
    t = torch.arange(1000)
    eps, v, x0 = (Diffusion(schedule, 1000, target) for target in TARGETS)
    torch.testing.assert_close(x0.min_snr_weight(t, 1e30), snr(x0, t))
    assert torch.equal(eps.min_snr_weight(t, 1e30), torch.ones(1000))
    torch.testing.assert_close(v.min_snr_weight(t, 1e30), v.alphas_cumprod.float())  # SNR / (SNR + 1) = α²
    lowest = snr(x0, t).min().item()
    torch.testing.assert_close(x0.min_snr_weight(t, lowest), torch.full((1000,), lowest))
    assert torch.equal(eps.min_snr_weight(t, 5.0) == 1, snr(eps, t) <= 5)


def gradients(training):
    """The curves and gradients of step 0, of a network whose answer is not zero."""
    torch.manual_seed(0)
    torch.nn.init.normal_(training.unet.head[-1].weight, std=0.1)
    values = training.train_step(0)
    return values, [parameter.grad for parameter in training.unet.parameters()]


@pytest.mark.parametrize("target", TARGETS)
def test_gradients_differ_by_the_weight_and_the_curve_not_at_all(tiny_model, monkeypatch, target):
    """On a batch of one image, whose weight is a common factor; the reported loss stays L_simple."""
    images, options = disks(1), {"batch_size": 1, "grad_clip": 1e9, "target": target, "flip": False}
    gamma = 1e-3  # below the SNR of most steps, so that the weight is none of 1
    training = make(tiny_model, images, images, min_snr=gamma, **options)
    seen, loss = [], training.diffusion.loss
    monkeypatch.setattr(training.diffusion, "loss", lambda p, x0, t, eps: seen.append(t) or loss(p, x0, t, eps))
    assert training.heldout_loss() == make(tiny_model, images, images, **options).heldout_loss()
    values, weighted = gradients(training)
    plain_values, plain = gradients(make(tiny_model, images, **options))
    assert values[0] == plain_values[0]
    weight = training.diffusion.min_snr_weight(seen[-1], gamma).item()
    assert weight != pytest.approx(1, rel=0.01)
    for ours, theirs in zip(weighted, plain, strict=True):
        torch.testing.assert_close(ours, weight * theirs, rtol=1e-4, atol=1e-6 * weight * plain_values[1].item())


def test_a_batch_taken_in_parts_has_the_same_gradients(tiny_model):
    images, results = disks(16), []
    for parts in (1, 3):
        options = {"variance": "learned", "min_snr": 5.0, "accumulate": parts, "grad_clip": 1e9}
        results.append(gradients(make(tiny_model, images, **options)))
    (whole, ours), (in_parts, theirs) = results
    torch.testing.assert_close(whole, in_parts, rtol=1e-5, atol=0)
    scale = max(gradient.abs().max() for gradient in ours)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5 * scale.item())


@pytest.mark.parametrize("levels", [1000, 100])
def test_the_bound_of_a_learned_variance_is_not_weighted(tiny_model, levels):
    """Its channels get the gradients of 0.001 L_vlb (Nichol & Dhariwal 2021, eq. 16), with the weight as without."""
    images = disks(16)
    (_, weighted), (_, plain) = (
        gradients(make(tiny_model, images, variance="learned", levels=levels, min_snr=gamma, grad_clip=1e9))
        for gamma in (5.0, 0.0)
    )
    ours, theirs = weighted[-1], plain[-1]  # the bias of the last convolution
    torch.testing.assert_close(ours[3:], theirs[3:])
    training = make(tiny_model, images, variance="learned", levels=levels)
    step = training.optimisation
    torch.manual_seed(0)
    torch.nn.init.normal_(training.unet.head[-1].weight, std=0.1)
    _, terms = step.losses(training.unet, *step._batch(0))
    (0.001 * levels * terms.mean()).backward()  # L_vlb is the sum over all steps
    torch.testing.assert_close(ours[3:], training.unet.head[-1].bias.grad[3:])
    assert not torch.allclose(ours[:3], theirs[:3], rtol=0.01)
