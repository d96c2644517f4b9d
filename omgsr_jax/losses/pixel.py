"""Losses between images, pixel by pixel."""

import jax.numpy as jnp
from jax import Array


def mse(x_p: Array, x_h: Array) -> Array:
    """Mean squared error, the L_MSE of Eq. 16: mean (x_P - x_H)^2."""
    return jnp.square(_difference(x_p, x_h)).mean()


def l1(x_p: Array, x_h: Array) -> Array:
    """Mean absolute error, which the revised paper takes in place of L_MSE: mean |x_P - x_H|."""
    return jnp.abs(_difference(x_p, x_h)).mean()


def _difference(x: Array, y: Array) -> Array:
    return x.astype(jnp.float32) - y.astype(jnp.float32)
