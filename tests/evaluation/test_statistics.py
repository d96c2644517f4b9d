"""Intervals and tests against what theory and simulation say."""

import numpy as np
import pytest
from scipy import stats

from omgsr_jax.errors import InputError
from omgsr_jax.evaluation.papers import IMAGES, paper_rows
from omgsr_jax.evaluation.statistics import (
    DRAWS,
    EXACT,
    FEWEST,
    holm,
    mean_interval,
    paired_difference,
    sign_flip_p,
)


def test_interval_of_normal_scores_is_that_of_theory():
    values = np.random.default_rng(0).normal(25, 2, 400)
    mean = mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert mean.value == pytest.approx(values.mean())
    assert mean.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert mean.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_repeat_and_leave_out_undefined_scores():
    values = np.array([1.0, 2.0, np.nan, 4.0])
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values).count == 3
    assert mean_interval(values).value == pytest.approx(7 / 3)
    assert np.isnan(mean_interval(np.array([np.nan])).value)


def test_pairing_finds_a_difference_that_spread_would_hide():
    rng = np.random.default_rng(1)
    images = rng.normal(25, 4, 100)  # how hard each is
    a, b = images + rng.normal(0.1, 0.1, 100), images + rng.normal(0, 0.1, 100)
    mean, p = paired_difference(a, b)
    assert mean.low > 0
    assert p < 0.001
    # Unpaired, the intervals of the means overlap widely.
    assert mean_interval(a).low < mean_interval(b).value


def test_false_alarms_are_as_rare_as_promised():
    rng = np.random.default_rng(2)
    alarms = [sign_flip_p(rng.normal(0, 1, 50), seed) < 0.05 for seed in range(200)]
    assert 0.01 < np.mean(alarms) < 0.11  # 5% of 200, with its own spread


def test_equal_scores_do_not_differ():
    mean, p = paired_difference(np.arange(6.0), np.arange(6.0))
    assert (mean.value, p) == (0, 1)


@pytest.mark.parametrize("count", range(FEWEST))
def test_a_few_images_tell_nothing_however_far_apart_they_are(count):
    """Of 5 differences all in favour of one system, 2 of 32 choices of signs are as far."""
    assert paired_difference(np.full(count, 30.0), np.zeros(count))[1] is None
    undefined = [np.nan] * 10
    assert (
        paired_difference(np.append(np.full(count, 3.0), undefined), np.zeros(10 + count))[1]
        is None
    )


def test_signs_are_flipped_in_every_way():
    """Fisher's own example: of Darwin's 15 pairs of maize, 1,726 of 32,768 choices are as far."""
    maize = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48.0])
    assert sign_flip_p(maize) == 1726 / 32768
    assert sign_flip_p(np.full(6, 0.1)) == 2 / 64
    assert sign_flip_p(np.array([0.1, 0.2, 0.3, -0.1, -0.2, -0.3])) == 1
    scores = np.random.default_rng(0).normal(0.5, 1, 12)
    expected = stats.permutation_test(
        (scores,), np.mean, permutation_type="samples", n_resamples=2**12
    )
    assert sign_flip_p(scores) == pytest.approx(expected.pvalue)


def test_more_pairs_are_sampled_and_never_give_zero():
    exact = np.random.default_rng(3).normal(0.5, 1, EXACT)
    sampled = np.append(exact, 0)  # changes no sum
    p = sign_flip_p(exact)
    assert sign_flip_p(sampled) == pytest.approx(p, abs=4 * np.sqrt(p / DRAWS))
    assert sign_flip_p(sampled) == sign_flip_p(sampled)
    assert sign_flip_p(np.ones(100)) == 1 / (DRAWS + 1)


def test_holm_is_stricter_than_each_and_milder_than_bonferroni():
    # Of 4 at 5%: .0125, .0167, .025, .05 in turn; the first failure ends it.
    assert holm([0.010, 0.016, 0.024, 0.2]) == [True, True, True, False]
    assert holm([0.02, 0.02, 0.02, 0.02]) == [False] * 4
    assert holm([0.2, 0.001]) == [False, True]
    assert holm([]) == []


@pytest.mark.parametrize("benchmark", IMAGES)
def test_the_papers_rows_are_there(benchmark):
    rows = {row.method: row for row in paper_rows(benchmark)}
    assert len(rows) == 13 + (benchmark != "DIV2K-Val") - (benchmark == "DRealSR")
    assert "Table" in rows["OMGSR-S"].source
    assert len(rows["OMGSR-F"].scores) == 9


def test_some_numbers_of_the_papers():
    rows = {row.method: row for row in paper_rows("RealSR")}
    assert rows["OMGSR-S"].scores["fid"] == 108.41
    assert rows["OMGSR-F"].scores["psnr"] == 26.62
    assert rows["OMGSR-S (t_m = 999)"].scores["niqe"] == 5.4276
    assert "fid" not in rows["FluxSR"].scores
    assert rows["OMGSR-S"].source.endswith("Tables 1, 4, 5")
    with pytest.raises(InputError, match="DRealSR"):
        paper_rows("DrealSR")
