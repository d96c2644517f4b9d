"""From noise to an image in many steps, as a pre-trained diffusion model makes one.

OMGSR takes one step. A chain shows what its base does (docs/analyses.md). The steps are those of
diffusers' DDIMScheduler and DDPMScheduler for a network that predicts the noise, and those of
FlowMatchEulerDiscreteScheduler for one that predicts the velocity.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from .errors import InputError
from .process import DDPM, FlowMatching, Residual

Chained = DDPM | FlowMatching
Predict = Callable[[Array, int], Array]  # z_t (b h w c) and t to what the network predicts
Fresh = Callable[[int, Array], Array]  # the number of a step and z_t to noise of its shape

# By name: the processes that have these steps.
SAMPLERS: dict[str, type] = {"ddim": DDPM, "ddpm": DDPM, "euler": FlowMatching}


def sampler_of(process: Chained, asked: str | None = None) -> str:
    """The name of the sampler: the one asked for, or the one without fresh noise."""
    if isinstance(process, Residual):
        raise InputError("this model predicts what to take away from z_L: it has no chain of steps")
    possible = [name for name, kind in SAMPLERS.items() if isinstance(process, kind)]
    if asked is not None and asked not in possible:
        raise InputError(f"the sampler {asked} is not for this model: take {' or '.join(possible)}")
    return asked or possible[0]


def timesteps(process: Chained, steps: int) -> list[int]:
    """Those of a chain: the last one of the process first, and then evenly spaced."""
    if not 1 <= steps <= process.timesteps:
        raise InputError(f"a chain has 1 to {process.timesteps} steps, not {steps}")
    return [round(process.timesteps * left / steps) - 1 for left in range(steps, 0, -1)]


def stepped(
    process: Chained,
    z_t: Array,
    prediction: Array,
    t: int,
    after: int | None,
    fresh: Array | None = None,
) -> Array:
    """The latent at timestep `after`, which is less noisy than `t`; the clean one for None.

    DDIM and Euler keep what the network takes for noise, and lower its share. DDPM puts `fresh`
    noise in the place of a part of it.
    """
    z_0 = process.clean(z_t, prediction, t)
    if after is None:
        return z_0
    noise = process.noise(z_0, prediction)
    if fresh is not None:
        renewed = _renewed(process, t, after)
        noise = jnp.sqrt(1 - renewed) * noise + jnp.sqrt(renewed) * fresh
    return process.noised(z_0, noise, after)


def _renewed(process: Chained, t: int, after: int) -> Array:
    """The share of the noise's power at `after` that DDPM's posterior draws anew."""
    assert isinstance(process, DDPM)
    now, later = process.alpha_bar(t), process.alpha_bar(after)
    return (1 - now / later) / (1 - now)


@dataclass(frozen=True)
class Chain:
    """The steps of one network.

    Attributes:
        fresh: DDPM's noise; without it the chain is DDIM's or Euler's.
    """

    predict: Predict
    process: Chained
    timesteps: list[int]
    fresh: Fresh | None = None

    def run(self, z: Array, first: int = 0) -> list[Array]:
        """`z` at the timestep of number `first`, what follows at the later ones, and the clean
        latent."""
        latents = [z]
        times = [*self.timesteps, None]
        for number in range(first, len(self.timesteps)):
            t, after = self.timesteps[number], times[number + 1]
            fresh = self.fresh(number, z) if self.fresh else None
            z = stepped(self.process, z, self.predict(z, t), t, after, fresh)
            latents.append(z)
        return latents
