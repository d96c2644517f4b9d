"""Rotary positions: pairs of a head's channels turn by angles that say where its token is."""

import jax.numpy as jnp
import numpy as np
from jax import Array


def angles(positions: np.ndarray, channels: int, theta: float) -> np.ndarray:
    """By how much each pair of `channels` turns at these positions: n -> n channels/2, fp64."""
    return positions[:, None] * theta ** (-np.arange(0, channels, 2) / channels)


def rotate(x: Array, turn: Array) -> Array:
    """Turns neighbouring channels of every head, b n k d, by cosine and sine, 2 n d/2."""
    cos, sin = turn[:, None, :, None, :]  # 1 n 1 d/2
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


def rotate_halves(x: Array, turn: Array) -> Array:
    """The same where a pair is a channel of a head's first half and its like of the second."""
    cos, sin = turn[:, None, :, None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
