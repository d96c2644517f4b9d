"""One optimiser step: who is trained by what, and by which random numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omgsr_jax.training import step
from omgsr_jax.training.run import Run
from tests.training.runs import batches, smallest


class _Compiled:
    """A run of the smallest kind on one device, its step compiled once."""

    def __init__(self, **changes):
        run = Run.of(smallest(**changes), jax.devices()[:1])
        self.frozen, self.start = run.frozen(), run.start
        # Without optimisation: half the time.
        self.compiled = run.lower().compile({"xla_backend_optimization_level": 0})

    def step(self, now, batch):
        return self.compiled(now, self.frozen, jax.device_put(batch))


@pytest.fixture(scope="module")
def run():
    return _Compiled(data={"accumulation": 2})


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


def test_noise_belongs_to_the_example_whatever_the_number_of_processes():
    """Two processes take examples in turn; here their rows stand one process after the other."""
    alone = step._numbers({0: [0, 1, 2, 3, 4, 5]})
    both = step._numbers({0: [0, 1, 2], 1: [3, 4, 5]})
    assert alone.tolist() == [0, 1, 2, 3, 4, 5]
    assert both.tolist() == [0, 2, 4, 1, 3, 5]
    assert step._numbers({0: [0, 3], 1: [1, 2]}).tolist() == [0, 1, 3, 2]
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
