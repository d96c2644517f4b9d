"""How far an image's latents are from those of its original: what a mid-timestep of its own is
chosen by."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from .layers import Linear, Rngs, zeros

_LEAST_POWER = 1e-4


@dataclass(frozen=True)
class TimestepHeadConfig:
    width: int = 64


class TimestepHead(nnx.Module):
    """From latents z_L, the logarithm of E[(z_L - z_H)^2] as the pre-trained VAE's would have it.

    By the SNR criterion that error alone decides on the timestep: see `process.timestep_of`. What
    is lost lies in detail, so the head sees how strong each channel is, and how much of it changes
    from a latent to the next. Before it is trained it predicts `start`.
    """

    def __init__(self, config: TimestepHeadConfig, channels: int, *, start: float, rngs: Rngs):
        self.hidden = Linear(2 * channels, config.width, rngs=rngs)
        self.out = Linear(config.width, 1, rngs=rngs)
        self.out.kernel = nnx.Param(zeros(rngs, config.width, 1))
        self.start = start

    def __call__(self, z_l: Array) -> Array:  # b h w c -> b
        z = z_l.astype(jnp.float32)
        changes = _power(jnp.diff(z, axis=1)) + _power(jnp.diff(z, axis=2))
        powers = jnp.concatenate([_power(z), changes], axis=-1)  # b 2c
        hidden = jax.nn.silu(self.hidden(jnp.log(powers + _LEAST_POWER)))
        return self.out(hidden).astype(jnp.float32)[:, 0] + self.start


def _power(z: Array) -> Array:  # b h w c -> b c
    """The mean square, 0 of nothing."""
    return jnp.square(z).sum((1, 2)) / max(1, z.shape[1] * z.shape[2])
