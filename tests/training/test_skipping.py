"""Steps that are not finite: passed over as often as the config allows, and the run knows it."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omgsr_jax.errors import InputError
from omgsr_jax.training import checkpoints, log, loop, skipping, work_directory
from omgsr_jax.training.config import RunConfig
from omgsr_jax.training.stopping import stop_requests
from tests.training import toy

_ADAM = optax.adamw(0.1)


class _State(NamedTuple):
    step: jax.Array
    weights: dict[str, jax.Array]
    optimizer: Any


@jax.jit
def _step(state, gradient):
    update, optimizer = _ADAM.update({"w": gradient}, state.optimizer, state.weights)
    new = _State(state.step + 1, optax.apply_updates(state.weights, update), optimizer)
    return skipping.unless_not_finite(state, new, {"loss": gradient.sum(), "ok": gradient > 0})


def _start():
    weights = {"w": jnp.ones(3)}
    return _State(jnp.int32(0), weights, _ADAM.init(weights))


def _after(gradients):
    state = _start()
    for gradient in gradients:
        state, metrics = _step(state, jnp.float32(gradient))
    return state, metrics


def test_a_skipped_step_is_as_if_it_had_not_been_but_counted():
    good, bad = [1.0, 2.0, 3.0], [1.0, np.inf, 3.0]
    with_bad, metrics = _after([good, bad, good, [np.nan] * 3, good])
    assert metrics["skipped"] == 2
    assert with_bad.step == 5
    without, metrics = _after([good] * 3)
    assert metrics["skipped"] == 0
    jax.tree.map(np.testing.assert_array_equal, with_bad._replace(step=0), without._replace(step=0))


def _run(workdir, steps, bad, allowed):
    """The toy, with its own account of what is skipped; `bad` are the numbers of spoilt steps."""
    task = toy.task()
    inner, count = task.step, {"skipped": 0}

    def step(state, batch):
        if int(state.step) + 1 in bad:
            batch = {**batch, "x": batch["x"].copy()}
            batch["x"][2] = np.nan
        new, metrics = inner(state, batch)
        if not np.isfinite(metrics["loss"]):
            count["skipped"] += 1
            new = state._replace(step=new.step)
        return new, {**metrics, "skipped": count["skipped"]}

    config = RunConfig(steps=steps, log_every=1, save_every=5, skip_not_finite=allowed)
    settings = {"run": dataclasses.asdict(config)}
    with stop_requests() as stop, work_directory.opened(workdir, settings, config) as saved:
        return loop.train(dataclasses.replace(task, step=step), config, saved, stop)


def test_a_run_goes_on_over_as_many_as_are_allowed_and_says_so(tmp_path, capsys):
    assert _run(tmp_path, 12, bad={3, 7}, allowed=2) == loop.Outcome(12, finished=True)
    said = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert len(said) == 2
    assert said[0].startswith("step 3 is not finite: loss = nan")
    assert "Examples: photo-" in said[0]
    assert said[1].endswith("2 of 2 (run.skip_not_finite)")
    values = log.read(tmp_path)
    assert values[7]["skipped"] == 2
    assert "loss" not in values[7]
    assert all(np.isfinite(value) for step in values.values() for value in step.values())


def test_one_more_stops_it_and_the_last_checkpoint_is_untouched(tmp_path):
    with pytest.raises(loop.NotFiniteError, match=r"step 8 .* 2 steps have been skipped before it"):
        _run(tmp_path, 12, bad={3, 7, 8}, allowed=2)
    assert checkpoints.find(tmp_path, "latest") == 5


def test_none_is_skipped_unless_it_is_asked_for(tmp_path):
    with pytest.raises(loop.NotFiniteError, match="step 3 "):
        _run(tmp_path, 12, bad={3}, allowed=0)
    with pytest.raises(InputError, match=r"run\.skip_not_finite is -1, expected 0 or more"):
        RunConfig(skip_not_finite=-1)
