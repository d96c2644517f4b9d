"""One optimiser step: who is trained by what, and by which random numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omgsr_jax.data import PRESETS, example_rng, sampled_plan, signed
from omgsr_jax.data.degradation_jax import degrade_batch, plan_arrays
from omgsr_jax.training import step
from omgsr_jax.training.layout import Reader
from omgsr_jax.training.run import Run
from tests.data.photos import synthetic_photo
from tests.training.runs import batches, smallest


class _Compiled:
    """A run of the smallest kind on one device, its step compiled once, for floats: those of
    `batches`, which may be spoilt, or an example."""

    def __init__(self, example=None, **changes):
        run = Run.of(smallest(**changes), jax.devices()[:1])
        self.frozen, self.start = run.frozen(), run.start
        # Without optimisation: half the time.
        lowered = run.lower(example or batches(1)[0])
        self.compiled = lowered.compile({"xla_backend_optimization_level": 0})

    def step(self, now, batch):
        return self.compiled(now, self.frozen, jax.device_put(batch))


@pytest.fixture(scope="module")
def run():
    return _Compiled(data={"accumulation": 2}, run={"skip_not_finite": 1})


@pytest.fixture(scope="module")
def after(run):
    """Start, end and metrics of two steps."""
    now, metrics = run.start(), []
    start = jax.device_get(now)
    for batch in batches(2):
        now, measured = run.step(now, batch)
        metrics.append(jax.device_get(measured))
    return start, jax.device_get(now), metrics


def test_a_step_trains_adapters_and_heads_and_hands_on_the_spectral_vectors(after):
    start, end, metrics = after
    assert end.step == 2
    for part in ("generator", "discriminator", "spectral"):
        before, now = getattr(start, part), getattr(end, part)
        # The adapters' A have no gradient as long as B is 0, in the first step. A singular vector
        # of one entry is 1 and stays so.
        changed = [np.abs(now[n] - before[n]).max() > 0 for n in before if before[n].size > 1]
        assert all(changed), part
    assert {"ldr", "mse", "features", "gan", "generator", "discriminator"} <= set(metrics[0])
    assert all(np.isfinite(value).all() for measured in metrics for value in measured.values())


def test_only_adapters_and_heads_have_optimiser_state(run, after):
    start, _, _ = after
    moments = jax.tree_util.tree_flatten_with_path(
        (start.generator_optimizer, start.discriminator_optimizer)
    )[0]
    named = {path[-1].key for path, _ in moments if hasattr(path[-1], "key")}
    assert named == set(start.generator) | set(start.discriminator)
    assert not named & set(run.frozen)
    assert all(leaf.dtype == jnp.float32 for leaf in start.generator.values())


def test_the_total_is_the_weighted_sum_of_the_terms(after):
    _, _, metrics = after
    m = metrics[0]
    expected = 5 * m["ldr"] + 2 * m["mse"] + m["features"] + 0.5 * m["gan"]
    assert m["generator"] == pytest.approx(expected, rel=1e-5)


def test_the_average_of_the_adapters_follows_them(after):
    start, end, _ = after
    for name in start.generator:
        gap = np.abs(end.generator[name] - start.generator[name]).max()
        assert 0 < np.abs(end.ema[name] - start.ema[name]).max() < gap


def test_a_step_is_repeated_bit_by_bit_and_differs_from_the_next(run, after):
    _, end, metrics = after
    again = run.start()
    for batch, expected in zip(batches(2), metrics, strict=True):
        again, measured = run.step(again, batch)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(measured), expected)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), end)
    other = run.start()._replace(step=jnp.int32(1))
    _, measured = run.step(other, batches(1)[0])
    assert measured["ldr"] != metrics[0]["ldr"]  # another step, other noise


def test_an_example_that_is_not_finite_is_pointed_at(run):
    batch = batches(1)[0]
    batch["lr"][5, 0, 0, 0] = np.nan
    _, metrics = run.step(run.start(), batch)
    assert np.flatnonzero(~np.asarray(metrics["ok"])).tolist() == [5]
    assert not np.isfinite(metrics["mse"])


def test_a_step_that_is_not_finite_changes_nothing_but_the_number_of_the_step(run, after):
    _, end, _ = after
    batch = batches(1)[0]
    batch["hr"][2, 3, 4, 0] = np.inf
    now, metrics = run.step(jax.device_put(end), batch)
    assert metrics["skipped"] == 1
    assert now.step == end.step + 1
    jax.tree.map(np.testing.assert_array_equal, now._replace(step=end.step), end)
    assert after[2][-1]["skipped"] == 0


def test_bytes_are_made_floats_of_in_the_step():
    micro = {"lr": np.uint8([[0, 255]]), "hr": np.uint8([[7, 9]]), "number": np.int32([0])}
    mesh = Run.of(smallest(), jax.devices()[:1]).mesh
    floats = step._as_floats(smallest().data, mesh)(micro)
    np.testing.assert_array_equal(floats["lr"], np.float32([[-1, 1]]))
    np.testing.assert_array_equal(floats["hr"], signed(micro["hr"]))
    assert step._as_floats(smallest().data, mesh)(floats).keys() == floats.keys()


@pytest.mark.slow
def test_degraded_in_the_step_is_degraded_alone():
    """The whole step with plans in place of low-quality images, against one that is given these."""
    plans = [sampled_plan(PRESETS[512], example_rng(0, 0, i)) for i in range(8)]
    arrays = [plan_arrays(plan, PRESETS[512], (64, 64)) for plan in plans]
    plan = {key: np.stack([one[key] for one in arrays]) for key in arrays[0]}
    hr = np.stack([synthetic_photo(64, 64, i) for i in range(8)])
    lr = np.asarray(degrade_batch(hr, plan, PRESETS[512]))
    found = {}
    for where, batch in {"host": {"lr": lr, "hr": hr}, "device": {"plan": plan, "hr": hr}}.items():
        run = _Compiled(batch, data={"resolution": 64, "degrade_on": where})
        _, found[where] = run.step(run.start(), batch)
    for name in ("ldr", "mse", "features", "gan", "gradient/generator"):
        assert found["device"][name] == pytest.approx(found["host"][name], rel=1e-3), name


def test_noise_belongs_to_the_example_whatever_the_number_of_processes():
    """Two processes take examples in turn; here their rows stand one process after the other."""
    alone, both, apart = (
        step._numbers([Reader(i, (i,), rows) for i, rows in enumerate(all_rows)])
        for all_rows in (((0, 1, 2, 3, 4, 5),), ((0, 1, 2), (3, 4, 5)), ((0, 3), (1, 2)))
    )
    assert alone.tolist() == [0, 1, 2, 3, 4, 5]
    assert both.tolist() == [0, 2, 4, 1, 3, 5]
    assert apart.tolist() == [0, 1, 3, 2]
    key = jax.random.key(3)
    keys = (step.example_keys(key, jnp.asarray(n)) for n in (alone, both))
    one, two = map(jax.random.key_data, keys)
    np.testing.assert_array_equal(one[:, [0, 2, 4, 1, 3, 5]], two)


@pytest.mark.slow
def test_micro_batches_add_up_to_the_whole_batch(run, after):
    """Two micro-batches of 4 against one of 8. The vectors of the spectral norms advance once for
    each micro-batch, so only the generator's first step is the same."""
    _, _, metrics = after
    whole = _Compiled()
    _, measured = whole.step(whole.start(), batches(1)[0])
    for name in ("ldr", "mse", "features"):
        assert measured[name] == pytest.approx(metrics[0][name], rel=1e-5)
    assert measured["gan"] == pytest.approx(metrics[0]["gan"], rel=0.1)


@pytest.mark.slow
def test_the_published_quirk_changes_the_discriminators_gradient_only(after):
    _, _, metrics = after
    published = _Compiled(quirks="v2", data={"accumulation": 2})
    _, measured = published.step(published.start(), batches(1)[0])
    for name in ("generator", "gradient/generator", "gan"):
        assert measured[name] == pytest.approx(metrics[0][name], rel=1e-5)
    assert measured["gradient/discriminator"] != pytest.approx(
        metrics[0]["gradient/discriminator"], rel=0.01
    )


@pytest.mark.slow
def test_without_the_gan_there_is_no_discriminator():
    run = _Compiled(losses={"gan": 0.0})
    now, metrics = run.step(run.start(), batches(1)[0])
    assert not now.discriminator
    assert not now.spectral
    assert "discriminator" not in metrics
