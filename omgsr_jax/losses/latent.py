"""The loss that moves the LQ latents to where the pre-trained backbone expects noisy latents."""

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ..process import Process


def ldr(z_l: Array, z_h: Array, eps: Array, process: Process, t_m: ArrayLike) -> Array:
    """Latent Distribution Refinement, Eq. 10 (DDPM) and Eq. 11 (FM): mean ||z_L - z_{t_m}||^2.

    z_L as it enters the process, which a variant of the process may scale.

    z_{t_m} is the HQ latent z_H under the noise eps, as `process` mixes them at the mid-timestep;
    no gradient goes into either. The revised paper's LRR loss is this function. Latents are scaled:
    b h w c.
    """
    z_t = lax.stop_gradient(process.noised(z_h.astype(jnp.float32), eps.astype(jnp.float32), t_m))
    return jnp.square(process.injected(z_l.astype(jnp.float32), t_m) - z_t).mean()
