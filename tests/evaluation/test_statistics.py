"""Intervals and tests against what theory and simulation say."""

import numpy as np
import pytest

from omgsr_jax.errors import InputError
from omgsr_jax.evaluation.papers import IMAGES, paper_rows
from omgsr_jax.evaluation.statistics import holm, mean_interval, paired_difference


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
    alarms = [paired_difference(*rng.normal(0, 1, (2, 50)), seed)[1] < 0.05 for seed in range(200)]
    assert 0.01 < np.mean(alarms) < 0.11  # 5% of 200, with its own spread


def test_equal_scores_do_not_differ():
    mean, p = paired_difference(np.arange(5.0), np.arange(5.0))
    assert (mean.value, p) == (0, 1)


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
