"""95 % intervals of scores: what another draw of as many images might have given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

NORMAL = float(stats.norm.ppf(0.975))
REPLICATES = 1000


@dataclass(frozen=True)
class Interval:
    """A score with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def from_parts(value: float, parts: np.ndarray) -> Interval:
    """Take the spread of a score over random halves of the images as that of the score over draws of all.

    Halves without replacement (the delete-d jackknife of Shao & Wu 1989, with d = N/2) instead of a bootstrap with it:
    the copies that a bootstrap draws raise the Fréchet distance and, with fewer images than features, more than double
    its spread. A mean over half of N images varies around that over all by σ²/(N/2) · (1 - 1/2) = σ²/N, as the mean
    over all does around the truth.
    """
    half = NORMAL * float(np.std(parts, ddof=1))
    return Interval(value, max(0.0, value - half), value + half)


def from_blocks(blocks: np.ndarray) -> Interval:
    """Mean of independent estimates, by Student's t."""
    mean = float(blocks.mean())
    half = float(stats.t.ppf(0.975, len(blocks) - 1)) * standard_error(blocks)
    return Interval(mean, mean - half, mean + half)


def difference(x: Sequence[float], y: Sequence[float], settings: int) -> Interval | None:
    """Mean of x less mean of y, for all pairs among several settings at once; None where their spread is not known.

    So it holds also for the pair that was chosen because its means are the furthest apart, as the best of many is.
    Games & Howell 1976: Welch's standard error and degrees of freedom, with the studentized range in the place of t;
    of two settings it is Welch's interval (1947).
    """
    if min(len(x), len(y)) < 2 or np.ptp(x) == np.ptp(y) == 0:
        return None
    gap, error = float(np.mean(x) - np.mean(y)), float(np.hypot(stats.sem(x), stats.sem(y)))
    freedom = stats.ttest_ind(x, y, equal_var=False).df
    half = float(stats.studentized_range.ppf(0.95, settings, freedom)) / 2**0.5 * error
    return Interval(gap, gap - half, gap + half)


def standard_error(blocks: np.ndarray) -> float:
    """Standard error of the mean of independent estimates."""
    return float(blocks.std(ddof=1) / np.sqrt(len(blocks)))


def of_fraction(fraction: float, count: int) -> Interval:
    """A fraction of `count` images (Wilson 1927), which is no single point at 0 and 1 either."""
    low, high = stats.binomtest(round(fraction * count), count).proportion_ci(method="wilson")
    return Interval(fraction, float(low), float(high))


def bootstrap(statistic: Callable[[np.ndarray, np.ndarray], float], x: np.ndarray, y: np.ndarray) -> Interval:
    """Percentile bootstrap (Efron 1979) of a statistic of two independent sets, the same for the same input."""
    rng = np.random.default_rng(0)
    drawn = [statistic(rng.choice(x, len(x)), rng.choice(y, len(y))) for _ in range(REPLICATES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(statistic(x, y), float(low), float(high))
