import dataclasses
import math

import numpy as np
import pytest

from omgsr_jax.data.kernels import SHAPES
from omgsr_jax.data.plan import (
    PRESETS,
    PUBLISHED_FIRST,
    DegradationConfig,
    example_rng,
    sampled_plan,
    stage_sizes,
)
from omgsr_jax.errors import InputError

DRAWS = 3000


@pytest.fixture(scope="module")
def plans():
    return [sampled_plan(PRESETS[512], example_rng(7, 0, i)) for i in range(DRAWS)]


def assert_share(happened, probability):
    """Within 4.5 standard deviations of a binomial share: fails by chance once in 150,000."""
    happened = list(happened)
    deviation = math.sqrt(probability * (1 - probability) / len(happened))
    assert np.mean(happened) == pytest.approx(probability, abs=4.5 * deviation)


def test_a_plan_depends_on_seed_epoch_and_index_alone():
    def draw(*key):
        return sampled_plan(PRESETS[512], example_rng(*key))

    assert draw(1, 2, 3) == draw(1, 2, 3)
    others = [draw(1, 2, 4), draw(1, 3, 3), draw(2, 2, 3), draw(3, 2, 1)]
    assert all(draw(1, 2, 3) != other for other in others)
    with pytest.raises(InputError, match="must not be negative"):
        example_rng(-1, 0, 0)


def test_choices_come_at_the_published_rates(plans):
    assert_share((p.second.kernel is not None for p in plans), 0.5)
    assert all(p.first.kernel is not None for p in plans)
    assert_share((p.first.kernel.kind == "sinc" for p in plans), 0.1)
    for kind, probability in zip(SHAPES, PRESETS[512].kernel_probabilities, strict=True):
        assert_share((p.first.kernel.kind == kind for p in plans), 0.9 * probability)
    assert_share((p.final_sinc is not None for p in plans), 0.8)
    assert_share((p.jpeg_last for p in plans), 0.5)
    for stage, (up, down, keep) in (("first", (0.2, 0.7, 0.1)), ("second", (0.3, 0.4, 0.3))):
        stages = [getattr(p, stage) for p in plans]
        assert_share((s.resize > 1 for s in stages), up)
        assert_share((s.resize < 1 for s in stages), down)
        assert_share((s.resize == 1 for s in stages), keep)
        assert_share((s.poisson for s in stages), 0.5)
        assert_share((s.grey for s in stages), 0.4)
        for mode in ("area", "bilinear", "bicubic"):
            assert_share((s.mode == mode for s in stages), 1 / 3)


def test_parameters_fill_the_published_ranges(plans):
    def filled(values, low, high):
        values = np.array(list(values))
        assert low <= values.min() <= low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) <= values.max() <= high

    filled((p.first.resize for p in plans), 0.3, 1.5)
    filled((p.second.resize for p in plans), 0.6, 1.2)
    filled((p.first.noise for p in plans if not p.first.poisson), 1, 15)
    filled((p.first.noise for p in plans if p.first.poisson), 0.05, 2)
    filled((p.second.noise for p in plans if not p.second.poisson), 1, 12)
    filled((p.second.noise for p in plans if p.second.poisson), 0.05, 1)
    filled((p.first.quality for p in plans), 60, 95)
    filled((p.second.quality for p in plans), 60, 100)
    filled((p.first.kernel.sigma[0] for p in plans if p.first.kernel.kind == "iso"), 0.2, 3)
    assert {p.first.kernel.size for p in plans} == set(range(7, 22, 2))


def test_strong_low_pass_needs_a_large_kernel(plans):
    sincs = [p.first.kernel for p in plans if p.first.kernel.kind == "sinc"]
    small = [k.cutoff for k in sincs if k.size < 13]
    large = [k.cutoff for k in sincs if k.size >= 13]
    assert min(small) >= math.pi / 3 > min(large) >= math.pi / 5


def test_sizes_follow_the_scale():
    plan = sampled_plan(PRESETS[1024], example_rng(0, 0, 0))
    plan = dataclasses.replace(
        plan,
        first=dataclasses.replace(plan.first, resize=0.51),
        second=dataclasses.replace(plan.second, resize=1.1),
    )
    assert stage_sizes(plan, (1024, 512), 8) == ((522, 261), (140, 70), (128, 64))


def test_the_1024_preset_has_wider_kernels_and_a_larger_scale():
    sizes = {
        sampled_plan(PRESETS[1024], example_rng(0, 0, i)).first.kernel.size for i in range(400)
    }
    assert sizes == set(range(11, 42, 2))
    assert PRESETS[1024].scale == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_size": (8, 21)}, "two odd numbers in order"),
        ({"kernel_probabilities": (0.5, 0.6)}, "must be 6 probabilities that sum to 1"),
        ({"final_sinc_probability": 1.2}, "between 0 and 1"),
        ({"scale": 0}, "scale must be at least 1"),
    ],
)
def test_impossible_configs_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        DegradationConfig(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blur_sigma": (0.0, 3.0)}, "blur_sigma must be"),
        ({"jpeg_quality": (95, 60)}, "jpeg_quality must be"),
        ({"resize_range": (1.1, 1.5)}, "resize_range must contain 1"),
        ({"resize_probabilities": (1.0, 1.0, 0.0)}, "must be 3 probabilities that sum to 1"),
    ],
)
def test_impossible_stages_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(PUBLISHED_FIRST, **change)
