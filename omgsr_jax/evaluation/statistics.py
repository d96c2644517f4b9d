"""How sure the numbers are: bootstrap intervals of means, and of differences on the same images.

Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, with the percentile interval; Holm's
correction (Scandinavian Journal of Statistics 6, 1979) where several comparisons are made at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
CHUNK = 1_000_000  # indices sampled at once: bounds memory for any number of images


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
    p: float  # two-sided, of no difference; not corrected
    significant: bool  # at 5% after Holm's correction over all comparisons of the report


def mean_interval(values: np.ndarray, seed: int = 0) -> Mean:
    """Mean and 95% interval over images; undefined (NaN) scores are left out and not counted."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return Mean(float("nan"), float("nan"), float("nan"), 0)
    low, high = np.quantile(_resampled_means(values, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Mean(float(values.mean()), float(low), float(high), len(values))


def paired_difference(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[Mean, float]:
    """Mean of `a - b` with its interval, and the p value of their having the same mean.

    Images are resampled, not scores: that an image is hard for both systems cancels, which is what
    makes a few tenths of a dB tell on a hundred images.
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    difference = difference[np.isfinite(difference)]
    mean = mean_interval(difference, seed)
    if not len(difference):
        return mean, 1.0
    # Under no difference the resampled means would be the same distribution around 0.
    null = np.abs(_resampled_means(difference, seed) - mean.value)
    beyond = np.count_nonzero(null >= abs(mean.value) * (1 - 1e-12))
    return mean, (beyond + 1) / (RESAMPLES + 1)


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
