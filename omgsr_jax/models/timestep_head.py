"""How far an image's latents are from those of its original: what a mid-timestep of its own is
chosen by."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from .layers import Conv, Linear, Rngs, zeros

_MOST_HALVINGS = 8


@dataclass(frozen=True)
class TimestepHeadConfig:
    """Convolutions of so many channels, each of which halves the map."""

    widths: tuple[int, ...] = (32, 64, 64)

    def __post_init__(self) -> None:
        if not 1 <= len(self.widths) <= _MOST_HALVINGS:
            raise ValueError(f"widths must be 1 to {_MOST_HALVINGS}, not {len(self.widths)}")


class TimestepHead(nnx.Module):
    """From latents z_L, the logarithm of E[(z_L - z_H)^2] as the pre-trained VAE's would have it.

    By the SNR criterion that error alone decides on the timestep: see `process.timestep_of`. Before
    it is trained it predicts `start`.
    """

    def __init__(self, config: TimestepHeadConfig, channels: int, *, start: float, rngs: Rngs):
        sizes = zip((channels, *config.widths), config.widths, strict=False)
        self.convs = nnx.List(
            [Conv(c_in, c_out, 3, stride=2, padding=1, rngs=rngs) for c_in, c_out in sizes]
        )
        self.out = Linear(config.widths[-1], 1, rngs=rngs)
        self.out.kernel = nnx.Param(zeros(rngs, config.widths[-1], 1))
        self.start = start

    def __call__(self, z_l: Array) -> Array:  # b h w c -> b
        x = z_l
        for conv in self.convs:
            x = jax.nn.silu(conv(x))
        return self.out(x.mean((1, 2))).astype(jnp.float32)[:, 0] + self.start
