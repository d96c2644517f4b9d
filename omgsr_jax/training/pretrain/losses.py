"""What the prior minimises."""

import jax
import jax.numpy as jnp
from jax import Array

from ...generator import OMGSR
from ...models.sampling import sampled_normal
from ..loop import Metrics


def denoising_loss(generator: OMGSR, images: Array, key: Array) -> tuple[Array, Metrics]:
    """The error of the predicted noise (Eq. 2), or velocity, at random timesteps."""
    for_z, for_t, for_eps = jax.random.split(key, 3)
    z = jax.lax.stop_gradient(generator.encode(images, for_z))
    eps = sampled_normal(for_eps, z.shape)
    t = jax.random.randint(for_t, z.shape[:1], 0, generator.process.timesteps)
    process = generator.process
    predicted = generator.predict(process.noised(z, eps, t), t).astype(jnp.float32)
    error = jnp.square(predicted - process.target(z, eps)).mean()
    return error, {"noise": error}
