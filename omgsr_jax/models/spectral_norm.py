"""Spectral normalisation, as torch.nn.utils.spectral_norm does it.

The largest singular value of a kernel is estimated by one step of power iteration per training
forward. The two vectors of that iteration are neither trained nor fixed: a training step takes the
`SpectralVector`s from the discriminator's state and hands them on.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from .layers import Conv, Linear, Rngs, initial


class SpectralVector(nnx.Variable):
    """A singular vector on its way to convergence."""


class SpectralNorm(nnx.Module):
    """A linear or convolution layer whose kernel is divided by its largest singular value.

    As a matrix, a kernel has its output channels as one axis and all else as the other.
    """

    def __init__(self, base_layer: Linear | Conv, *, rngs: Rngs):
        *fan_in, c_out = base_layer.kernel.shape
        self.base_layer = base_layer
        self.u = SpectralVector(initial(_init_unit, rngs, c_out))
        self.v = SpectralVector(initial(_init_unit, rngs, math.prod(fan_in)))

    def __call__(self, x: Array, *, train: bool) -> Array:
        """The normalised layer's output; `train` advances the power iteration first."""
        base = self.base_layer
        kernel = base.kernel[...].astype(jnp.float32)
        kernel = (kernel / self.sigma(train=train)).astype(base.kernel.dtype)
        x = x.astype(kernel.dtype)
        y = base.convolve(x, kernel) if isinstance(base, Conv) else x @ kernel
        return y if base.bias is None else y + base.bias[...]

    def sigma(self, *, train: bool) -> Array:
        """The estimated singular value; its gradient takes the vectors as constants."""
        kernel = self.base_layer.kernel[...].astype(jnp.float32)
        matrix = kernel.reshape(-1, kernel.shape[-1])  # fan_in c_out
        u, v = self.u[...], self.v[...]
        if train:
            fixed = lax.stop_gradient(matrix)
            v = _unit(fixed @ u)
            u = _unit(v @ fixed)
            self.u[...], self.v[...] = u, v
        return v @ matrix @ u


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def _init_unit(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    return _unit(jax.random.normal(key, shape, dtype))
