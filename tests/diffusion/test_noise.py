import numpy as np
import pytest
import torch
from scipy import stats

from ddpm.diffusion import noise as noise_module
from ddpm.diffusion.noise import WORD, ImageNoise, philox

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((WORD,) * 4, (WORD,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    words = philox([torch.tensor([word]) for word in counter], key)
    assert " ".join(f"{word.item():08x}" for word in words) == expected


def test_philox_equals_its_definition_in_unbounded_integers():
    """Products of 64 bits do not fit into int64; NumPy's own Philox is another variant."""

    def plainly(c, k):
        for number in range(10):
            k0, k1 = (k[0] + number * 0x9E3779B9) % 2**32, (k[1] + number * 0xBB67AE85) % 2**32
            (high0, low0), (high2, low2) = divmod(c[0] * 0xD2511F53, 2**32), divmod(c[2] * 0xCD9E8D57, 2**32)
            c = (high2 ^ c[1] ^ k0, low2, high0 ^ c[3] ^ k1, low0)
        return c

    rng = np.random.default_rng(0)
    counters, key = rng.integers(2**32, size=(4, 100)), (123456789, 4000000000)
    ours = torch.stack(philox(list(torch.from_numpy(counters)), key), dim=1).tolist()
    assert [tuple(words) for words in ours] == [plainly(counter, key) for counter in counters.T.tolist()]


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 5, 7), (1, 1, 1)])
def test_noise_of_an_image_depends_on_seed_and_index_alone(shape):
    together, later = ImageNoise(7, range(13), shape, CPU), ImageNoise(7, range(5, 9), shape, CPU)
    for _ in range(3):
        everyone = together()
        assert everyone.shape == (13, *shape) and everyone.dtype == torch.float32
        assert torch.equal(everyone[5:9], later())
    assert torch.equal(together.uniform()[5:9], later.uniform())


def test_noise_is_standard_normal():
    draws = ImageNoise(0, range(400), (3, 32, 32), CPU)().double().numpy().ravel()
    n = len(draws)
    # Moments 1 to 4 within four standard errors of those of a normal distribution.
    assert abs(draws.mean()) < 4 / n**0.5
    assert abs(draws.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs(stats.skew(draws)) < 4 * (6 / n) ** 0.5
    assert abs(stats.kurtosis(draws)) < 4 * (24 / n) ** 0.5
    assert stats.kstest(draws, "norm").pvalue > 0.01
    assert np.abs(draws).max() > 4.3  # the tails are there


def test_every_place_of_an_image_is_standard_normal():
    draws = ImageNoise(1, range(4000), (3, 4, 4), CPU)().flatten(1).numpy()
    worst = min(stats.kstest(place, "norm").pvalue for place in draws.T)
    assert worst > 0.01 / draws.shape[1]


def test_images_draws_and_places_share_nothing():
    noise = ImageNoise(0, range(60), (3, 16, 16), CPU)
    rows = torch.cat([noise().flatten(1) for _ in range(3)])  # (180, 768)
    for table in (rows, rows.T):
        expected = 5.5 / table.shape[1] ** 0.5  # five and a half standard errors: one in 10^7 is beyond
        assert torch.corrcoef(table).fill_diagonal_(0).abs().max() < expected
    assert rows.unique().numel() > 0.99 * rows.numel()


@pytest.mark.parametrize("far", [(1, 0), (2**32, 0), (2**62, 0), (2**63 - 1, 0), (0, 1), (0, 9_999_999)])
def test_far_seeds_and_indices_have_streams_of_their_own(far):
    seed, index = far
    ours = ImageNoise(seed, range(index, index + 1), SHAPE, CPU)()
    origin = ImageNoise(0, range(1), SHAPE, CPU)()
    assert torch.corrcoef(torch.stack([ours.flatten(), origin.flatten()]))[0, 1].abs() < 0.3
    swapped = ImageNoise(index, range(seed % 2**32, seed % 2**32 + 1), SHAPE, CPU)()
    assert not torch.equal(ours, swapped)


def test_uniform_numbers_are_uniform_and_a_draw_of_their_own():
    noise = ImageNoise(3, range(5000), (1, 2, 2), CPU)
    first, second = noise.uniform(), noise.uniform()
    assert first.dtype == torch.float64 and first.min() > 0 and first.max() < 1
    assert stats.kstest(first.numpy(), "uniform").pvalue > 0.01
    assert abs(stats.pearsonr(first.numpy(), second.numpy()).statistic) < 4 / 5000**0.5


def test_the_least_and_the_greatest_word_give_finite_numbers_inside_0_and_1(monkeypatch):
    """The logarithm of 0 would be met once or twice in 10,000 images of 100 noisy steps."""
    for word in (0, WORD):
        monkeypatch.setattr(noise_module, "philox", lambda counter, _key, w=word: [torch.full_like(counter[0], w)] * 4)
        noise = ImageNoise(0, range(2), SHAPE, CPU)
        assert noise().isfinite().all()
        assert noise.uniform().min() > 0 and noise.uniform().max() < 1
