"""Texture: do two images consist of the same patches, wherever in them these are?"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..models.features import Detail
from ..models.resize import resize_area

PATCH = 7  # px
DIRECTIONS = 24
STRIDES = (3, 1, 1)  # from patch to patch, at the full, half and quarter size
WINDOW = 24  # px
WAVES = 64
WAVE_STRIDE = 5  # px
SMALLEST = max(WINDOW, PATCH * 2 ** (len(STRIDES) - 1))  # px, the side that has room for each


def texture(x_p: Array, x_h: Array, key: Array) -> Array:
    """The sliced Wasserstein distance between the patches of two images' detail.

    mean over images and directions d of mean_i |sort(d . p)_i - sort(d . h)_i|, where p and h are
    the images' patches, and the directions are drawn anew with each key (Heitz et al. 2021 compare
    feature maps so). Other errors are least for the mean of all that may have been, which has no
    texture. This one asks for as much as there was, but not for every grain in its place.

    It is taken along any directions of small patches at three sizes, and along waves in windows
    that are long enough to tell one frequency from the next: to the former, grain and a weave of
    few waves can be alike. No stride shares a factor with a decoder's, or patches would show only
    some of the places in its lattice.

    Args:
        x_p: restored images, b h w 3 in [-1, 1].
        x_h: their originals.
        key: for the directions, the same for all images.
    """
    for_waves, *for_directions = jax.random.split(key, 1 + len(STRIDES))
    along_waves = _distance(x_p, x_h, _waves(for_waves, x_h.shape[-1]), WAVE_STRIDE)
    distances = []
    for stride, one in zip(STRIDES, for_directions, strict=True):
        directions = jax.random.normal(one, (PATCH, PATCH, x_h.shape[-1], DIRECTIONS))
        distances.append(_distance(x_p, x_h, _unit(directions), stride))
        half = (x_h.shape[1] // 2, x_h.shape[2] // 2)
        x_p, x_h = resize_area(x_p, half), resize_area(x_h, half)
    return jnp.stack(distances).mean() + along_waves


def _distance(x_p: Array, x_h: Array, directions: Array, stride: int) -> Array:
    p, h = (_sorted(x, directions, stride) for x in (x_p, x_h))
    return jnp.abs(p - h).mean()


def _sorted(x: Array, directions: Array, stride: int) -> Array:
    """How far patches reach in each direction, in order: b directions patches."""
    (detail,) = Detail().features(x)
    reach = lax.conv_general_dilated(
        detail, directions, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )  # b h' w' directions
    return jnp.sort(jnp.moveaxis(reach.reshape(len(x), -1, reach.shape[-1]), -1, 1))


def _waves(key: Array, channels: int) -> Array:
    """Plane waves of any frequency, phase and colour: size size channels waves."""
    for_frequency, for_phase, for_colour = jax.random.split(key, 3)
    down, across = jax.random.uniform(for_frequency, (2, WAVES), minval=-0.5, maxval=0.5)  # 1 / px
    phase = jax.random.uniform(for_phase, (WAVES,), maxval=2 * jnp.pi)
    colour = jax.random.normal(for_colour, (channels, WAVES))
    y, x = np.mgrid[:WINDOW, :WINDOW][..., None]
    waves = jnp.cos(2 * jnp.pi * (down * y + across * x) + phase)  # size size waves
    fade = np.sin(np.pi * (np.arange(WINDOW) + 0.5) / WINDOW) ** 2  # Hann
    waves *= fade[:, None, None] * fade[:, None]
    return _unit(waves[:, :, None] * colour)


def _unit(directions: Array) -> Array:
    return directions / jnp.sqrt(jnp.square(directions).sum((0, 1, 2)))
