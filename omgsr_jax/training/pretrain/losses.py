"""What each stage minimises."""

import jax
import jax.numpy as jnp
from jax import Array

from ...generator import OMGSR
from ...losses.pixel import l1
from ...losses.texture import texture
from ...models.sampling import sampled_normal
from ...models.vae import VAE
from ..loop import Metrics


def autoencoding_loss(
    vae: VAE, images: Array, key: Array, *, kl: float, edges: float
) -> tuple[Array, Metrics]:
    """How far images are from their reconstruction, in pixels and in edges, and the posterior from
    a standard Gaussian."""
    posterior = vae.encode(images)
    restored = vae.decode(posterior.sample(key)).astype(jnp.float32)
    divergence = 0.5 * jnp.mean(
        jnp.square(posterior.mean) + jnp.exp(posterior.logvar) - 1 - posterior.logvar
    )
    error, terms = _error(restored, images, edges)
    return error + kl * divergence, {**terms, "kl": divergence}


def texture_loss(
    vae: VAE, images: Array, key: Array, *, edges: float, weight: float
) -> tuple[Array, Metrics]:
    """How far images are from their reconstruction, pixel by pixel and in their textures."""
    for_z, for_texture = jax.random.split(key)
    restored = vae.decode(vae.encode(images).sample(for_z)).astype(jnp.float32)
    error, terms = _error(restored, images, edges)
    terms["texture"] = texture(restored, images, for_texture)
    return error + weight * terms["texture"], terms


def _error(restored: Array, images: Array, edges: float) -> tuple[Array, dict[str, Array]]:
    down, across = (l1(jnp.diff(restored, axis=i), jnp.diff(images, axis=i)) for i in (1, 2))
    terms = {"l1": l1(restored, images), "edges": down + across}
    return terms["l1"] + edges * terms["edges"], terms


def recoloured(images: Array, key: Array) -> Array:
    """Images of which half, drawn at random, have their red, green and blue exchanged at random and
    their colours made weaker or stronger: few photographs show few colours."""

    def recolour(image: Array, key: Array) -> Array:  # h w 3
        for_order, for_strength, for_choice = jax.random.split(key, 3)
        moved = image[..., jax.random.permutation(for_order, 3)]
        grey = moved.mean(-1, keepdims=True)
        strength = jax.random.uniform(for_strength, minval=0.5, maxval=2.0)
        moved = jnp.clip(grey + strength * (moved - grey), -1, 1)
        return jnp.where(jax.random.bernoulli(for_choice), moved, image)

    return jax.vmap(recolour)(images, jax.random.split(key, len(images)))


def denoising_loss(generator: OMGSR, images: Array, key: Array) -> tuple[Array, Metrics]:
    """The error of the predicted noise at random timesteps (Eq. 2)."""
    for_z, for_t, for_eps = jax.random.split(key, 3)
    z = jax.lax.stop_gradient(generator.encode(images, for_z))
    eps = sampled_normal(for_eps, z.shape)
    t = jax.random.randint(for_t, z.shape[:1], 0, generator.process.timesteps)
    predicted = generator.predict(generator.process.noised(z, eps, t), t)
    error = jnp.square(predicted.astype(jnp.float32) - eps).mean()
    return error, {"noise": error}
