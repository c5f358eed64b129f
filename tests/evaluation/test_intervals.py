"""That the intervals are as wide as the scores really vary from one draw of the images to the next."""

import numpy as np
import pytest
import torch
from scipy import stats

from ddpm.evaluation import protocol
from ddpm.evaluation.intervals import bootstrap, difference, from_blocks, from_parts, of_fraction
from ddpm.evaluation.protocol import fid_interval
from ddpm.evaluation.scores import FrechetDistance


def drawn(rng, count, dims):
    """Samples of a model that is a little off: shifted and stretched normal features of unequal variances."""
    scale = np.exp(-4 * np.arange(dims) / dims)
    return torch.from_numpy(rng.standard_normal((count, dims)) * 1.1 * scale + 0.2 * scale)


@pytest.mark.parametrize(("count", "dims"), [(200, 16), (60, 48), (40, 96)])
def test_the_interval_of_fid_is_as_wide_as_fid_varies_or_somewhat_wider(count, dims):
    rng = np.random.default_rng(0)
    real = torch.from_numpy(rng.standard_normal((500, dims)) * np.exp(-4 * np.arange(dims) / dims))
    truth = np.std([FrechetDistance(real, drawn(rng, count, dims))() for _ in range(200)])
    intervals = [fid_interval(real, drawn(rng, count, dims), lambda: None) for _ in range(10)]
    widths = np.array([interval.high - interval.low for interval in intervals]) / (2 * 1.96)
    assert 0.85 < widths.mean() / truth < 2


def test_the_interval_of_fid_holds_the_score_and_shrinks_with_the_number_of_images():
    rng = np.random.default_rng(1)
    real = torch.from_numpy(rng.standard_normal((500, 8)))
    few, many = (fid_interval(real, drawn(rng, count, 8), lambda: None) for count in (50, 2000))
    assert 0 <= few.low < few.value < few.high
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_students_interval_of_a_mean_holds_the_truth_in_95_of_100():
    rng = np.random.default_rng(0)
    intervals = [from_blocks(rng.standard_normal(10) + 3) for _ in range(2000)]
    held = np.mean([interval.low < 3 < interval.high for interval in intervals])
    assert held == pytest.approx(0.95, abs=0.015)


def test_the_interval_of_a_fraction_is_wilsons():
    interval = of_fraction(0.0, 20)
    assert (interval.low, interval.high) == (0, pytest.approx(1.959964**2 / (20 + 1.959964**2), rel=1e-5))


def test_the_bootstrap_of_a_ratio_of_means_is_as_wide_as_the_ratio_varies():
    rng = np.random.default_rng(0)

    def ratio(x, y):
        return x.mean() / y.mean()

    draws = [(rng.exponential(2, 300), rng.exponential(1, 200)) for _ in range(300)]
    truth = np.std([ratio(*pair) for pair in draws])
    interval = bootstrap(ratio, *draws[0])
    assert interval.low < ratio(*draws[0]) < interval.high
    assert (interval.high - interval.low) / (2 * 1.96) == pytest.approx(truth, rel=0.2)
    assert bootstrap(ratio, *draws[0]) == interval


def test_the_difference_of_two_settings_is_welchs():
    x, y = (10.0, 12.0, 14.5), (9.0, 9.5, 9.1, 11.0)
    interval, welch = difference(x, y, 2), stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert (interval.low, interval.high) == (pytest.approx(welch.low), pytest.approx(welch.high))


def test_the_range_of_three_settings_is_that_of_the_tables():
    """Of equal variances and 6 seeds each, Welch has 10 degrees of freedom; q(0.95; 3, 10) is 3.877."""
    x = np.array([-2.0, -1.0, 0.0, 0.0, 1.0, 2.0])
    interval = difference(x + 1, x, 3)
    half = 3.877 / 2**0.5 * (2 * x.var(ddof=1) / 6) ** 0.5
    assert (interval.low, interval.high) == (pytest.approx(1 - half, abs=2e-3), pytest.approx(1 + half, abs=2e-3))


def test_the_best_of_equal_settings_is_seldom_told_apart():
    """An interval for one pair alone does so in every fifth table of nine equal settings with three seeds each."""
    rng = np.random.default_rng(0)
    tables = [sorted(rng.standard_normal((9, 3)), key=np.mean) for _ in range(30)]
    alone = [
        (table[-1], table[0]) for table in tables if stats.ttest_ind(table[-1], table[0], equal_var=False)[1] < 0.05
    ]
    assert len(alone) >= 6
    assert sum(difference(worst, best, 9).low > 0 for worst, best in alone) <= 2


def test_nothing_is_known_of_a_single_seed_or_of_seeds_without_a_spread():
    assert difference([1.0], [2.0, 3.0], 2) is None and difference([1.0, 1.0], [2.0, 2.0], 2) is None


def test_a_bootstrap_draws_as_many_of_each_set_as_it_has():
    sizes = set()
    bootstrap(lambda x, y: sizes.add((len(x), len(y))) or 0.0, np.arange(7.0), np.arange(4.0))
    assert sizes == {(7, 4)}


def test_a_fraction_stands_for_the_nearest_number_of_images():
    """0.29 × 100 is 28.999… in binary."""
    found, exact = of_fraction(0.29, 100), stats.binomtest(29, 100).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_intervals_end_where_scores_do():
    assert from_parts(0.1, np.array([0.0, 1.0, 2.0])).low == 0.0
    assert protocol._fraction(0.99, np.array([0.9, 0.95, 1.0]), 50).high == 1.0
