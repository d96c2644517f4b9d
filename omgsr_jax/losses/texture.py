"""Texture: do two images consist of the same patches, wherever in them these are?"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..models.features import Detail
from ..models.resize import resize_area

PATCH = 7
DIRECTIONS = 24
STRIDES = (2, 1, 1)  # from patch to patch, at the full, half and quarter size
SMALLEST = PATCH * 2 ** (len(STRIDES) - 1)  # px, the side of an image that has a patch at each


def texture(x_p: Array, x_h: Array, key: Array) -> Array:
    """The sliced Wasserstein distance between the patches of two images' detail.

    mean over sizes, images and directions d of mean_i |sort(d . p)_i - sort(d . h)_i|, where p and
    h are the images' patches, and the directions are drawn anew with each key (Heitz et al. 2021
    compare feature maps so). Other errors are least for the mean of all that may have been, which
    has no texture. This one asks for as much as there was, but not for every grain in its place.

    Args:
        x_p: restored images, b h w 3 in [-1, 1].
        x_h: their originals.
        key: for the directions, the same for all images.
    """
    distances = []
    for stride, one in zip(STRIDES, jax.random.split(key, len(STRIDES)), strict=True):
        directions = jax.random.normal(one, (PATCH, PATCH, x_h.shape[-1], DIRECTIONS))
        directions /= jnp.sqrt(jnp.square(directions).sum((0, 1, 2)))
        p, h = (_sorted(x, directions, stride) for x in (x_p, x_h))
        distances.append(jnp.abs(p - h).mean())
        half = (x_h.shape[1] // 2, x_h.shape[2] // 2)
        x_p, x_h = resize_area(x_p, half), resize_area(x_h, half)
    return jnp.stack(distances).mean()


def _sorted(x: Array, directions: Array, stride: int) -> Array:
    """How far patches reach in each direction, in order: b directions patches."""
    (detail,) = Detail().features(x)
    reach = lax.conv_general_dilated(
        detail, directions, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )  # b h' w' directions
    return jnp.sort(jnp.moveaxis(reach.reshape(len(x), -1, reach.shape[-1]), -1, 1))
