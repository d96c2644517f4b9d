"""The light degradation, and the mixture that it is part of."""

import dataclasses

import numpy as np
import pytest

from omgsr_jax.data import MIXED, DataConfig, degrade, example_rng, sampled_plan
from omgsr_jax.data.light import LightConfig, LightPlan, degrade_lightly, sampled_light_plan
from omgsr_jax.data.plan import DegradationConfig, Mixture, Plan
from omgsr_jax.errors import InputError

_NOTHING = LightPlan((0.0, 0.0), "BICUBIC", 1.0, 0.0, 0.0, None, 0)


@pytest.fixture
def photo():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (64, 96, 3), np.uint8)


def test_a_plan_of_nothing_only_reduces_and_enlarges(photo):
    flat = np.full_like(photo, 77)
    np.testing.assert_array_equal(degrade(flat, _NOTHING, 4), flat)
    assert degrade(photo, _NOTHING, 4).shape == (64, 96, 3)
    assert degrade(photo, _NOTHING, 4, resize_back=False).shape == (16, 24, 3)


def test_the_same_plan_gives_the_same_image(photo):
    plan = sampled_light_plan(LightConfig(), np.random.default_rng(3))
    first, second = (degrade_lightly(photo, plan, 4) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_sharpening_raises_contrast_and_blur_lowers_it(photo):
    def contrast(**changes):
        plan = dataclasses.replace(_NOTHING, **changes)
        return degrade(photo, plan, 4, resize_back=False).std()

    assert contrast(sharpen_amount=1.0) > contrast() > contrast(blur_sigma=(3.0, 3.0))


def test_the_mixture_draws_its_parts_by_their_shares():
    plans = [sampled_plan(MIXED, example_rng(0, 0, i)) for i in range(400)]
    light = np.mean([isinstance(plan, LightPlan) for plan in plans])
    assert light == pytest.approx(0.6, abs=0.08)
    assert all(isinstance(plan, LightPlan | Plan) for plan in plans)


def test_wrong_mixtures_are_named():
    with pytest.raises(InputError, match="sum to 1"):
        Mixture((LightConfig(),), (0.5,))
    with pytest.raises(InputError, match="one scale"):
        Mixture((LightConfig(), DegradationConfig(scale=8)), (0.5, 0.5))


def test_mixed_degradations_leave_no_choice_of_another():
    with pytest.raises(InputError, match=r"data.mixed takes degradations of its own"):
        DataConfig(mixed=True, degradation=1024, resolution=1024)
