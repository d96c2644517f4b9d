"""Texture: do two images consist of the same patches, wherever in them these are?"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..models.features import Detail
from ..models.ops.resize import resize_area

PATCH = 7  # px
DIRECTIONS = 24
STRIDES = (3, 1, 1)  # from patch to patch, at the full, half and quarter size
WINDOW = 24  # px
WAVES = 64
WAVE_STRIDE = 5  # px
NEIGHBOURS = 3  # windows, along each side
LATTICE = 4  # px
# px, the side of an image that has room for each
SMALLEST = max(WINDOW + (NEIGHBOURS - 1) * WAVE_STRIDE, PATCH * 2 ** (len(STRIDES) - 1))


def texture(x_p: Array, x_h: Array, key: Array) -> Array:
    """Whether the detail of two images is of the same kind, not whether it is the same.

    mean_d mean_i |sort(d . p)_i - sort(d . h)_i| + mean_{w, y, x} |P_w(p)_yx - P_w(h)_yx|
        + mean_l |S_l(p) - S_l(h)|

    The first term is the sliced Wasserstein distance between the images' patches at three sizes
    along directions d (Heitz et al. 2021 compare feature maps so). Other errors are least for the
    mean of all that may have been, which has no texture. This one asks for as much as there was,
    but not for every grain in its place. To it a weave of few waves can be like grain, and one on a
    wall like the edges of the house: so the second compares how strong waves w of any frequency are
    around each place. Neither sees whether every fourth pixel is unlike the next, as a decoder that
    works on a coarser lattice makes them: so the third compares how strong steps from pixel to
    pixel are at each place l of a lattice, in units of their mean. Directions and waves are sampled
    anew with each key.

    Args:
        x_p: restored images, b h w 3 in [-1, 1].
        x_h: their originals.
        key: for the directions and waves, the same for all images.
    """
    for_waves, *for_directions = jax.random.split(key, 1 + len(STRIDES))
    waves = _waves(for_waves, x_h.shape[-1])
    along_waves = jnp.abs(_strengths(x_p, waves) - _strengths(x_h, waves)).mean()
    by_place = jnp.abs(_steps(x_p) - _steps(x_h)).mean()
    distances = []
    for stride, one in zip(STRIDES, for_directions, strict=True):
        directions = _unit(jax.random.normal(one, (PATCH, PATCH, x_h.shape[-1], DIRECTIONS)))
        p, h = (_sorted(x, directions, stride) for x in (x_p, x_h))
        distances.append(jnp.abs(p - h).mean())
        half = (x_h.shape[1] // 2, x_h.shape[2] // 2)
        x_p, x_h = resize_area(x_p, half), resize_area(x_h, half)
    return jnp.stack(distances).mean() + along_waves + by_place


def _sorted(x: Array, directions: Array, stride: int) -> Array:
    """How far patches reach in each direction, in order: b directions patches."""
    reach = _reach(x, directions, stride)
    return jnp.sort(jnp.moveaxis(reach.reshape(len(x), -1, reach.shape[-1]), -1, 1))


def _strengths(x: Array, waves: Array) -> Array:
    """How strong each wave is around each place, whatever its phase: b h' w' waves."""
    sine_and_cosine = _reach(x, waves, WAVE_STRIDE)
    b, h, w, _ = sine_and_cosine.shape
    power = jnp.square(sine_and_cosine).reshape(b, h, w, -1, 2).sum(-1)
    around = (1, NEIGHBOURS, NEIGHBOURS, 1)
    power = lax.reduce_window(power, 0.0, lax.add, around, (1, 1, 1, 1), "VALID")
    return jnp.sqrt(power / NEIGHBOURS**2 + 1e-6)


def _steps(x: Array) -> Array:
    """How strong steps down and right are at each place of a lattice, of their mean: b 2 4 4."""
    (detail,) = Detail().features(x)
    b, h, w, c = detail.shape
    cells = (b, h // LATTICE, LATTICE, w // LATTICE, LATTICE, c)
    steps = [jnp.abs(detail - jnp.roll(detail, 1, axis)) for axis in (1, 2)]
    steps = [step[:, : cells[1] * LATTICE, : cells[3] * LATTICE].reshape(cells) for step in steps]
    strengths = jnp.stack([step.mean((1, 3, 5)) for step in steps], 1)
    return strengths / (strengths.mean((2, 3), keepdims=True) + 1e-3)


def _reach(x: Array, directions: Array, stride: int) -> Array:
    """How far each patch of the detail reaches in each direction: b h' w' directions."""
    (detail,) = Detail().features(x)
    return lax.conv_general_dilated(
        detail, directions, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _waves(key: Array, channels: int) -> Array:
    """Sines and cosines of any frequency and colour, in turn: size size channels waves*2."""
    for_frequency, for_colour = jax.random.split(key)
    down, across = jax.random.uniform(for_frequency, (2, WAVES), minval=-0.5, maxval=0.5)  # 1 / px
    colour = jax.random.normal(for_colour, (channels, WAVES, 1))
    y, x = np.mgrid[:WINDOW, :WINDOW][..., None] - WINDOW / 2
    phase = 2 * jnp.pi * (down * y + across * x)  # size size waves
    waves = jnp.stack([jnp.sin(phase), jnp.cos(phase)], -1)
    fade = np.sin(np.pi * (np.arange(WINDOW) + 0.5) / WINDOW) ** 2  # Hann
    waves *= (fade[:, None] * fade)[..., None, None]
    waves = waves[:, :, None] * colour  # size size channels waves 2
    return _unit(waves.reshape(WINDOW, WINDOW, channels, -1))


def _unit(directions: Array) -> Array:
    return directions / jnp.sqrt(jnp.square(directions).sum((0, 1, 2)))
