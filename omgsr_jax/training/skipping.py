"""Steps that are not finite, passed over: a bad example need not end a run.

How many there have been is not kept anywhere: optimisers count the updates that they make, and the
state counts the steps. So a resumed run knows it, and every process finds the same.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array

State = TypeVar("State")  # a NamedTuple with `step`, and with optimisers' states in it


def unless_not_finite(
    old: State, new: Any, metrics: dict[str, Array]
) -> tuple[State, dict[str, Array]]:
    """`new`, or `old` with one step more where a number among the metrics is not finite.

    The metrics get `skipped`: how many steps of the run have been passed over so far.
    """
    numbers = [value for value in metrics.values() if jnp.ndim(value) == 0]
    finite = jnp.stack([jnp.isfinite(value) for value in numbers]).all()
    kept = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, old)
    kept = kept._replace(step=new.step)
    return kept, metrics | {"skipped": new.step - updates(kept)}


def updates(state: Any) -> Array:
    """How many updates of its weights a state has had."""
    return optax.tree_utils.tree_get_all_with_path(state, "count")[0][1]
