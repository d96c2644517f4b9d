"""DiffAugment: what the discriminator sees of an image is recoloured, shifted and partly cut out.

Real and generated images alike pass through it, with gradients, so that a discriminator cannot
learn the training images by heart (Zhao et al. 2020). The rules are those of the published code:
brightness, saturation, contrast, translation by up to 1/8, a cut-out of half the height and width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

_SHIFT = 0.125
_CUTOUT = 0.5


class Augmentation(NamedTuple):
    """The random numbers behind the augmentation of b images."""

    brightness: Array  # b, in [-0.5, 0.5)
    saturation: Array  # b, in [0, 2)
    contrast: Array  # b, in [0.5, 1.5)
    shift: Array  # b 2, pixels down and to the right
    hole: Array  # b 2, the centre of the cut-out


def sample(key: Array, b: int, h: int, w: int) -> Augmentation:
    """The augmentation of b images of h x w pixels.

    With one key for every image or group of windows, a group depends on its own key alone.
    """
    if key.ndim:
        groups = jax.vmap(lambda one: sample(one, b // len(key), h, w))(key)
        return Augmentation(*(sampled.reshape(b, *sampled.shape[2:]) for sampled in groups))
    colour, *keys = jax.random.split(key, 5)
    brightness, saturation, contrast = jax.random.uniform(colour, (3, b))

    def within(key: Array, low: int, high: int) -> Array:  # both included
        return jax.random.randint(key, (b,), low, high + 1)

    def shift(key: Array, length: int) -> Array:
        return within(key, -_part(length, _SHIFT), _part(length, _SHIFT))

    def centre(key: Array, length: int) -> Array:
        return within(key, 0, length - _part(length, _CUTOUT) % 2)

    return Augmentation(
        brightness=brightness - 0.5,
        saturation=saturation * 2,
        contrast=contrast + 0.5,
        shift=jnp.stack([shift(keys[0], h), shift(keys[1], w)], -1),
        hole=jnp.stack([centre(keys[2], h), centre(keys[3], w)], -1),
    )


def augment(x: Array, sampled: Augmentation) -> Array:
    """Images (b h w 3) under their augmentation, fp32."""
    x = x.astype(jnp.float32) + _per_image(sampled.brightness)
    grey = x.mean(-1, keepdims=True)
    x = (x - grey) * _per_image(sampled.saturation) + grey
    grey = x.mean((1, 2, 3), keepdims=True)
    x = (x - grey) * _per_image(sampled.contrast) + grey
    return jax.vmap(_translated)(x, sampled.shift) * _hole_mask(
        x.shape[1], x.shape[2], sampled.hole
    )


def _translated(x: Array, shift: Array) -> Array:
    """One image (h w c) moved by `shift`; what moves in is black as zero is."""
    margin = tuple(_part(n, _SHIFT) for n in x.shape[:2])
    padded = jnp.pad(x, [*((m, m) for m in margin), (0, 0)])
    corner = jnp.asarray(margin) - shift
    return jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), x.shape)


def _hole_mask(h: int, w: int, hole: Array) -> Array:  # b h w 1
    """0 in a rectangle around each centre, of half the height and half the width; else 1."""
    inside = []
    for axis, length in enumerate((h, w)):
        cut = _part(length, _CUTOUT)
        first = hole[:, axis, None] - cut // 2  # b 1
        index = jnp.arange(length)
        inside.append((index >= first) & (index < first + cut))
    rows, columns = inside
    return 1.0 - (rows[:, :, None] & columns[:, None, :])[..., None]


def _part(length: int, ratio: float) -> int:
    return int(length * ratio + 0.5)


def _per_image(value: Array) -> Array:  # b -> b 1 1 1
    return value[:, None, None, None]
