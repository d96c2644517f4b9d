"""The GAN losses (L_GAN and L_OC-GAN, Eq. 15), as pure functions of a discriminator's parts.

The two steps of an iteration share one key and hand on the state of the spectral norms:

    loss, spectral = generator_loss(parts, x_p, key)
    parts = parts._replace(spectral=spectral)
    loss, spectral = discriminator_loss(parts, x_h, x_p, key)

Both can be jitted as they are. What a step trains is what the caller differentiates: the
generator's step with respect to x_P (and on to the generator's weights), the discriminator's with
respect to `parts.heads`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from ..models.discriminator import DiscriminatorParts
from ..models.spectral_norm import SpectralVector
from . import augment
from .chunks import chunks

_REAL = 0.8  # a label of 1 would let the discriminator grow too sure
_FAKE = 0.0


def bce(logits: list[Array], label: float) -> Array:
    """Binary cross-entropy of logits (b h w 1 per level): mean over a level, sum over levels."""
    levels = [logit.astype(jnp.float32) for logit in logits]
    # -label log D - (1 - label) log (1 - D), with D = sigmoid(logit)
    return jnp.stack([(jax.nn.softplus(z) - label * z).mean() for z in levels]).sum()


def generator_loss(
    parts: DiscriminatorParts, x_p: Array, key: Array, *, chunk: int | None = None
) -> tuple[Array, nnx.State]:
    """The generator's side of Eq. 15: x_P is to be taken for real.

    Args:
        parts: the discriminator.
        x_p: restored images, b h w 3 in [-1, 1].
        key: for the augmentation, one for all images or one for each; the same for both steps of
            an iteration.
        chunk: L_OC-GAN's window size (518 for DINOv2); None judges whole images.

    Returns:
        The loss, and the next state of the spectral norms.
    """
    logits, spectral = _judge(parts, x_p, look_keys(key)[0], chunk)
    return bce(logits, _REAL), spectral


def discriminator_loss(
    parts: DiscriminatorParts, x_h: Array, x_p: Array, key: Array, *, chunk: int | None = None
) -> tuple[Array, nnx.State]:
    """The discriminator's side of Eq. 15: x_H is real, x_P is not. No gradient goes into either.

    Returns:
        The loss, and the next state of the spectral norms.
    """
    real, fake = _looks(x_h, x_p, key)
    return _in_turn(parts, (real, fake), chunk)


def v1_discriminator_loss(
    parts: DiscriminatorParts, x_h: Array, x_p: Array, key: Array, *, chunk: int | None = None
) -> tuple[Array, nnx.State]:
    """`discriminator_loss`, with the gradient that the published code applies.

    It does not clear the gradient that the generator's step leaves in the discriminator, and
    applies it along with this step's. So this loss contains the generator's as a function of the
    heads; `parts` must hold the spectral norms' state that `generator_loss` returned.
    """
    loss, spectral = discriminator_loss(parts, x_h, x_p, key, chunk=chunk)
    return _left_by_generator(parts, x_p, key, chunk) + loss, spectral


def v2_discriminator_loss(
    parts: DiscriminatorParts, x_h: Array, x_p: Array, key: Array, *, chunk: int | None = None
) -> tuple[Array, nnx.State]:
    """`v1_discriminator_loss` that sees the fake before the real, as the published v2 does: the
    spectral norms advance with every look."""
    real, fake = _looks(x_h, x_p, key)
    loss, spectral = _in_turn(parts, (fake, real), chunk)
    return _left_by_generator(parts, x_p, key, chunk) + loss, spectral


class _Look(NamedTuple):
    images: Array
    key: Array  # of the augmentation
    label: float


def _looks(x_h: Array, x_p: Array, key: Array) -> tuple[_Look, _Look]:
    """At real images and at fake ones."""
    x_h, x_p = lax.stop_gradient((x_h, x_p))
    _, for_real, for_fake = look_keys(key)
    return _Look(x_h, for_real, _REAL), _Look(x_p, for_fake, _FAKE)


def _in_turn(
    parts: DiscriminatorParts, looks: tuple[_Look, _Look], chunk: int | None
) -> tuple[Array, nnx.State]:
    """The looks' losses together, each with the spectral norms that the one before it has left."""
    loss, spectral = jnp.zeros(()), parts.spectral
    for images, key, label in looks:
        logits, spectral = _judge(parts._replace(spectral=spectral), images, key, chunk)
        loss = loss + bce(logits, label)
    return loss, spectral


def _left_by_generator(
    parts: DiscriminatorParts, x_p: Array, key: Array, chunk: int | None
) -> Array:
    logits, _ = _judge(parts, lax.stop_gradient(x_p), look_keys(key)[0], chunk, train=False)
    return bce(logits, _REAL)


def relativistic_generator_loss(
    parts: DiscriminatorParts, x_h: Array, x_p: Array
) -> tuple[Array, nnx.State]:
    """x_P is to look more real than its own original x_H, place by place.

    Jolicoeur-Martineau, "The relativistic discriminator", 2018. Images are judged as they are.
    """
    real, fake, spectral = _both(parts, x_h, x_p)
    return _margin(fake, real), spectral


def relativistic_discriminator_loss(
    parts: DiscriminatorParts, x_h: Array, x_p: Array
) -> tuple[Array, nnx.State]:
    """x_H is to look more real than what was restored of it. No gradient goes into either."""
    real, fake, spectral = _both(parts, *lax.stop_gradient((x_h, x_p)))
    return _margin(real, fake), spectral


def _margin(higher: list[Array], lower: list[Array]) -> Array:
    levels = zip(higher, lower, strict=True)
    return jnp.stack([jax.nn.softplus(low - high).mean() for high, low in levels]).sum()


def _both(
    parts: DiscriminatorParts, x_h: Array, x_p: Array
) -> tuple[list[Array], list[Array], nnx.State]:
    """The logits of originals and of restored images, judged together."""
    discriminator = parts.merge()
    logits = discriminator(jnp.concatenate([x_h.astype(jnp.float32), x_p]), train=True)
    real, fake = zip(*(jnp.split(z.astype(jnp.float32), 2) for z in logits), strict=True)
    return list(real), list(fake), nnx.state(discriminator, SpectralVector)


def _judge(
    parts: DiscriminatorParts, x: Array, key: Array, chunk: int | None, *, train: bool = True
) -> tuple[list[Array], nnx.State]:
    """The logits of augmented images, and the spectral norms' state after this forward."""
    if chunk is not None:
        x = chunks(x, chunk)
    x = augment.augment(x, augment.sample(key, *x.shape[:3]))
    discriminator = parts.merge()
    logits = discriminator(x, train=train)
    return logits, nnx.state(discriminator, SpectralVector)


def look_keys(key: Array) -> Array:
    """A key for each look at the discriminator: the generator's, at real images, at fake ones."""
    if key.ndim:
        return jax.vmap(look_keys, out_axes=1)(key)  # 3 b
    return jax.random.split(key, 3)
