"""How sure the numbers are: intervals of means, and whether two systems differ on the same images.

Intervals are percentiles of the bootstrap (Efron & Tibshirani, "An Introduction to the Bootstrap",
1993). Differences are tested by flipping signs (Fisher, "The Design of Experiments", 1935), with
Holm's correction (Scandinavian Journal of Statistics 6, 1979) where several are tested at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST = 6  # pairs: of fewer, not even all in favour of one system are significant at 5%
EXACT = 20  # pairs: up to here, every choice of signs is counted
DRAWS = 20_000  # of signs, for more pairs; scipy.stats.permutation_test takes ten times as long
CHUNK = 1_000_000  # numbers sampled at once: bounds memory for any number of images


@dataclass(frozen=True)
class Mean:
    value: float
    low: float
    high: float
    count: int  # images on which the metric is defined


@dataclass(frozen=True)
class Difference:
    """`a` minus `b` in one metric, over the images on which both are defined."""

    metric: str
    a: str
    b: str
    value: float
    low: float
    high: float
    count: int  # images
    p: float | None  # two-sided, of no difference, not corrected; None: too few images to tell
    significant: bool  # at 5% after Holm's correction over all comparisons of the report


def mean_interval(values: np.ndarray, seed: int = 0) -> Mean:
    """Mean and 95% interval over images; undefined (NaN) scores are left out and not counted."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return Mean(float("nan"), float("nan"), float("nan"), 0)
    low, high = np.quantile(_resampled_means(values, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Mean(float(values.mean()), float(low), float(high), len(values))


def paired_difference(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[Mean, float | None]:
    """Mean of `a - b` with its interval, and the p value of their having the same mean.

    That an image is hard for both systems cancels, which is what makes a few tenths of a dB tell on
    a hundred images.
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    difference = difference[np.isfinite(difference)]
    return mean_interval(difference, seed), sign_flip_p(difference, seed)


def sign_flip_p(differences: np.ndarray, seed: int = 0) -> float | None:
    """How often the mean is as far from 0 as it is, or farther, if each sign is left to chance.

    None for fewer than `FEWEST`. Exact for up to `EXACT`; beyond, of `DRAWS` = m choices of signs
    and the b that are as far, it is (b + 1) / (m + 1).
    """
    if len(differences) < FEWEST:
        return None
    # Sums of the same numbers in another order differ in their last bits.
    far = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    if len(differences) <= EXACT:
        sums = differences[:1]  # the first sign may stay: turning all of them changes no distance
        for value in differences[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= far))
    count = sum(int(np.sum(np.abs(sums) >= far)) for sums in _flipped_sums(differences, seed))
    return (count + 1) / (DRAWS + 1)


def _flipped_sums(values: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // len(values))
    for start in range(0, DRAWS, rows):
        size = (min(rows, DRAWS - start), -(-len(values) // 8))
        flips = np.unpackbits(rng.integers(0, 256, size, np.uint8), axis=1)[:, : len(values)]
        yield values.sum() - 2 * (flips @ values)


def holm(p_values: Sequence[float], level: float = 1 - LEVEL) -> list[bool]:
    """Which hypotheses are rejected, with at most `level` chance of any false rejection."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // len(values))
    chunks = [
        values[rng.integers(0, len(values), (min(rows, RESAMPLES - start), len(values)))].mean(1)
        for start in range(0, RESAMPLES, rows)
    ]
    return np.concatenate(chunks)
