"""Losses between images, pixel by pixel."""

import jax.numpy as jnp
from jax import Array


def mse(x_p: Array, x_h: Array) -> Array:
    """Mean squared error, the L_MSE of Eq. 16: mean (x_P - x_H)^2."""
    return jnp.square(_difference(x_p, x_h)).mean()


def l1(x_p: Array, x_h: Array) -> Array:
    """Mean absolute error, which the revised paper takes in place of L_MSE: mean |x_P - x_H|."""
    return jnp.abs(_difference(x_p, x_h)).mean()


def spectrum(x_p: Array, x_h: Array) -> Array:
    """Mean absolute error of the real and imaginary parts of the images' orthonormal spectra."""
    found = jnp.fft.rfft2(_difference(x_p, x_h), axes=(1, 2), norm="ortho")  # b h w/2+1 3
    return (jnp.abs(found.real) + jnp.abs(found.imag)).mean()


def _difference(x: Array, y: Array) -> Array:
    return x.astype(jnp.float32) - y.astype(jnp.float32)
