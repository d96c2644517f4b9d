"""Sampled randomness: what differs from call to call, by a key."""

import jax
import jax.numpy as jnp
from jax import Array


def sampled_normal(key: Array, shape: tuple[int, ...]) -> Array:
    """Gaussian noise, fp32: with one key for all examples, or with one for each."""
    if key.ndim:
        return jax.vmap(lambda one: sampled_normal(one, shape[1:]))(key)
    return jax.random.normal(key, shape, jnp.float32)
