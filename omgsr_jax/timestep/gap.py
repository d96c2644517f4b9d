"""The gap between latents on a chain and the noisy latents that the network was trained on.

Fig. 4 of the paper. z̄_t is what the network gets at a step of its chain, and z_t = a z_0 + b eps
what it got at this timestep in training. Eq. 5 and 6 say that the two are close where nothing
disturbs the chain.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from ..chain import Chain
from ..errors import InputError


@dataclass(frozen=True)
class Way:
    """The latents of a chain from the timestep of number `first` on, and their gaps."""

    first: int
    latents: list[Array]  # b h w c; the last one is clean
    gaps: np.ndarray  # b n: the mean of (z̄_t - z_t)^2 over each of these latents

    @property
    def result(self) -> Array:
        return self.latents[-1]


def undisturbed(chain: Chain, eps: Array) -> Way:
    """From Gaussian noise. z_0 is what the chain itself arrives at, as nothing else is known."""
    latents = chain.run(eps)
    return _way(chain, 0, latents, latents[-1], eps)


def disturbed(
    chain: Chain, way: Way, eps: Array, noise: Array, left: int, levels: Sequence[float]
) -> Iterator[Way]:
    """With `noise` of each level added to z̄_t where `left` steps are left.

    z_t stays that of the undisturbed `way`.
    """
    first = number_of(chain.timesteps, left)
    for level in levels:
        latents = chain.run(way.latents[first] + level * noise, first)
        yield _way(chain, first, latents, way.result, eps)


def number_of(timesteps: Sequence[int], left: int) -> int:
    """The number of the step with which `left` steps are left."""
    if not 1 <= left <= len(timesteps):
        raise InputError(
            f"of a chain of {len(timesteps)} steps, 1 to {len(timesteps)} can be left, not {left}"
        )
    return len(timesteps) - left


def nearest(chain: Chain, t: int) -> int:
    """The number of the step whose timestep is nearest to `t`."""
    return int(np.abs(np.array(chain.timesteps) - t).argmin())


def from_images(chain: Chain, z_l: Array, z_h: Array, eps: Array, t_m: int) -> Mapping[str, Way]:
    """Chains that an image enters, and z_t of its original for all of them.

    z_L enters at the first timestep, where one-step models before OMGSR put it, or at the one that
    is nearest to the mid-timestep; there, z_t of the original enters too.
    """
    mid, process = nearest(chain, t_m), chain.process
    t_first, t_mid = chain.timesteps[0], chain.timesteps[mid]
    starts = {
        f"z_L at {t_first}": (0, process.injected(z_l, t_first)),
        f"z_L at {t_mid}": (mid, process.injected(z_l, t_mid)),
        f"z_t at {t_mid}": (mid, process.noised(z_h, eps, t_mid)),
    }
    return {
        name: _way(chain, first, chain.run(start, first), z_h, eps)
        for name, (first, start) in starts.items()
    }


def _way(chain: Chain, first: int, latents: list[Array], z_0: Array, eps: Array) -> Way:
    noisy = [chain.process.noised(z_0, eps, t) for t in chain.timesteps[first:]]
    gaps = [
        jnp.square(z - z_t).mean(tuple(range(1, z.ndim)))
        for z, z_t in zip(latents, [*noisy, z_0], strict=True)
    ]
    return Way(first, latents, np.stack([np.asarray(gap) for gap in gaps], axis=1))
