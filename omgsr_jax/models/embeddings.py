"""How a network is told numbers: sinusoids, and the two layers behind them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from .layers import Linear, Rngs


def timestep_embedding(
    t: Array, channels: int, *, flip_sin_to_cos: bool = True, freq_shift: float = 0.0
) -> Array:
    """Sinusoids of the timestep, fp32: b -> b channels."""
    half = channels // 2
    # The exponents are fp32, as in PyTorch, and their exponential is rounded once: a time in
    # thousands makes an error in the last digit as many times larger.
    exponents = np.float32(-math.log(10000)) * np.arange(half, dtype=np.float32)
    exponents /= np.float32(half - freq_shift)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = t.astype(jnp.float32)[:, None] * frequencies
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    return jnp.concatenate([cos, sin] if flip_sin_to_cos else [sin, cos], axis=-1)


class TimestepEmbedding(nnx.Module):
    def __init__(self, c_in: int, c_out: int, *, rngs: Rngs):
        self.linear_1 = Linear(c_in, c_out, rngs=rngs)
        self.linear_2 = Linear(c_out, c_out, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.linear_2(jax.nn.silu(self.linear_1(x)))
