"""The loss by noise level, of networks whose answers are known."""

import numpy as np
import pytest
import torch

from ddpm.diffusion.process import Diffusion
from ddpm.diffusion.schedules import log_snr
from ddpm.training import noise_levels
from ddpm.training.batches import ImageSet, StreamedSet
from ddpm.training.noise_levels import BINS, IMAGES, loss_by_noise_level

CPU = torch.device("cpu")


def images(count: int, value: int | None = None) -> ImageSet:
    pixels = np.random.default_rng(0).integers(256, size=(count, 8, 8, 3), dtype=np.uint8)
    if value is not None:
        pixels[:] = value
    return ImageSet(CPU, pixels, np.arange(count))


def zero(x_t, t, labels):
    return torch.zeros_like(x_t)


def test_a_network_that_always_answers_zero_has_the_mean_square_of_its_target():
    table = loss_by_noise_level(zero, Diffusion("cosine", 1000, "eps"), images(100), 32)
    assert len(table) == BINS
    # 100 · 192 squares of standard normals: their mean has the standard error sqrt(2 / 19200) = 0.01.
    assert table["loss"].to_numpy() == pytest.approx(1, abs=0.04)
    x0 = images(100).batch(torch.arange(100))[0]
    table = loss_by_noise_level(zero, Diffusion("cosine", 1000, "x0"), images(100), 32)
    assert table["loss"].to_numpy() == pytest.approx(x0.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_a_network_that_knows_the_images_has_no_loss(target):
    diffusion = Diffusion("linear", 1000, target)

    def exact(x_t, t, labels):
        alpha, sigma = diffusion.alpha_sigma(t)
        x0 = torch.full_like(x_t, 0.6)
        return diffusion.target_of(x0, t, (x_t - alpha * x0) / sigma)

    table = loss_by_noise_level(exact, diffusion, images(30, value=204), 7)
    assert table["loss"].max() < 1e-6


def test_an_error_at_some_steps_is_found_in_their_bin_alone():
    def wrong_from_500_to_549(x_t, t, labels):
        return ((t >= 500) & (t < 550)).float().view(-1, 1, 1, 1).expand_as(x_t)

    table = loss_by_noise_level(wrong_from_500_to_549, Diffusion("cosine", 1000, "x0"), images(30, value=0), 7)
    # x0 is -1 everywhere: the answer 0 costs 1, the answer 1 costs 4.
    assert table["loss"].tolist() == pytest.approx([4.0 if low == 500 else 1.0 for low in table["t_low"]])


@pytest.mark.parametrize("timesteps", [2, 19, 20, 50, 1000])
def test_the_bins_are_all_steps_and_each_step_once(timesteps):
    diffusion = Diffusion("sigmoid", timesteps, "eps")
    seen = []

    def watch(x_t, t, labels):
        seen.extend(t.tolist())
        return torch.zeros_like(x_t)

    table = loss_by_noise_level(watch, diffusion, images(60), 16)
    assert table["t_low"].iloc[0] == 0 and table["t_high"].iloc[-1] == timesteps - 1
    assert (table["t_low"].iloc[1:].to_numpy() == table["t_high"].iloc[:-1].to_numpy() + 1).all()
    widths = table["t_high"] - table["t_low"] + 1
    assert widths.max() - widths.min() <= 1 and len(table) == min(20, timesteps)
    assert sorted(set(seen)) == list(range(timesteps))  # 60 images are enough to visit the 50 steps of a bin
    levels = log_snr(diffusion.alphas_cumprod)
    for row in table.itertuples():
        assert row.log_snr == pytest.approx(levels[row.t_low : row.t_high + 1].mean().item())


def test_the_same_images_noise_and_bytes_whatever_was_drawn_before():
    diffusion, data = Diffusion("linear", 100, "eps"), images(20)

    def table(batch_size):
        seen = []

        def watch(x_t, t, labels):
            seen.append(x_t)
            return x_t.cos()

        torch.randn(torch.randint(9, ()).item())
        state = torch.get_rng_state()
        result = loss_by_noise_level(watch, diffusion, data, batch_size)
        assert torch.equal(torch.get_rng_state(), state)
        return result.to_csv(index=False), torch.cat(seen)

    first, second = table(8), table(8)
    assert first[0] == second[0] and torch.equal(first[1], second[1])
    assert torch.equal(table(5)[1], first[1])


def test_of_many_images_evenly_spaced_ones_are_taken_with_their_classes():
    seen = set()

    def watch(x_t, t, labels):
        seen.update(labels.tolist())
        return torch.zeros_like(x_t)

    loss_by_noise_level(watch, Diffusion("linear", 2, "eps"), images(3 * IMAGES), 250)
    assert len(seen) == IMAGES and min(seen) == 0 and max(seen) == 3 * IMAGES - 1
    assert np.diff(sorted(seen)).max() <= 4


def test_a_learned_variance_is_set_aside():
    def both(x_t, t, labels):
        return torch.cat([torch.zeros_like(x_t), torch.full_like(x_t, 9.0)], dim=1)

    plain = loss_by_noise_level(zero, Diffusion("linear", 100, "eps"), images(10), 4)
    learned = loss_by_noise_level(both, Diffusion("linear", 100, "eps", "learned"), images(10), 4)
    assert learned.equals(plain)


def test_images_that_stream_give_the_same_losses() -> None:
    """Of streamed images, the rows must stay on the host, also where the batches go to a GPU."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    rows, classes = np.arange(12), np.zeros(12, np.int64)
    diffusion = Diffusion("linear", 40, "eps")
    network = lambda x, t, labels: x  # noqa: E731
    streamed = StreamedSet(CPU, pixels, classes, rows)
    expected = loss_by_noise_level(network, diffusion, ImageSet(CPU, pixels, classes), 5)
    assert expected.equals(loss_by_noise_level(network, diffusion, streamed, 5))


def test_an_image_has_the_same_noise_in_all_bins():
    data, diffusion, seen = images(6), Diffusion("linear", 100, "x0"), []
    x0, _ = data.batch(torch.arange(6))

    def watch(x_t, t, labels):
        alpha, sigma = diffusion.alpha_sigma(t)
        seen.append((x_t - alpha * x0) / sigma)
        return x_t

    loss_by_noise_level(watch, diffusion, data, 6)
    assert len(seen) > 1
    for eps in seen[1:]:
        torch.testing.assert_close(eps, seen[0], atol=2e-4, rtol=0)


def test_time_steps_do_not_follow_the_order_of_the_images(monkeypatch):
    """Which is that of their classes."""
    monkeypatch.setattr(noise_levels, "BINS", 1)
    times, order = [], []

    def watch(x_t, t, labels):
        times.extend(t.tolist())
        order.extend(labels.tolist())
        return torch.zeros_like(x_t)

    loss_by_noise_level(watch, Diffusion("linear", 1000, "eps"), images(100), 100)
    assert len(set(order)) == 100 and abs(np.corrcoef(times, order)[0, 1]) < 0.3
