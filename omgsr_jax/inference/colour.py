"""Giving a restored image the colours of its source: both are b h w 3, fp32 in [0, 1].

| method | what is taken from the source |
|---|---|
| adain | mean and deviation of each of R, G, B |
| wavelet | everything coarser than 32 px |
| lab | mean and deviation of each of L*, a*, b* (Reinhard et al., 2001) |
| none | nothing |

`adain` and `wavelet` are the published ones. Images may lie on a canvas that is larger than they
are: then their heights and widths are given.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .options import COLORS, require_color

_EPSILON = 1e-5
_WAVELET_LEVELS = 5

Sizes = Array | None  # b 2: height and width; None where images fill their canvas


def align(image: Array, source: Array, method: str | Array, sizes: Sizes = None) -> Array:
    """`image` with the colours of `source`; within [0, 1]. A method has a name, or its number in
    `COLORS`, which may be known only when a program runs."""
    if isinstance(method, str):
        require_color(method)
        return jnp.clip(METHODS[method](image, source, sizes), 0, 1)
    methods = [lambda x, y, one=METHODS[name]: one(x, y, sizes) for name in COLORS]
    return jnp.clip(lax.switch(method, methods, image, source), 0, 1)


def adain(image: Array, source: Array, sizes: Sizes) -> Array:
    mean, deviation = _statistics(image, sizes)
    source_mean, source_deviation = _statistics(source, sizes)
    return (image - mean) / deviation * source_deviation + source_mean


def wavelet(image: Array, source: Array, sizes: Sizes) -> Array:
    return image + _coarse(source - image, sizes)


def lab(image: Array, source: Array, sizes: Sizes) -> Array:
    return _from_lab(adain(_to_lab(image), _to_lab(source), sizes))


def none(image: Array, source: Array, sizes: Sizes) -> Array:
    return image


METHODS: dict[str, Callable[[Array, Array, Sizes], Array]] = {
    "adain": adain,
    "wavelet": wavelet,
    "lab": lab,
    "none": none,
}


def _statistics(image: Array, sizes: Sizes) -> tuple[Array, Array]:
    """Mean and deviation per channel, b 1 1 c; the variance is the sample's, as PyTorch's is."""
    _, h, w, _ = image.shape
    sizes = jnp.array([[h, w]]) if sizes is None else sizes
    rows, columns = (
        (jnp.arange(length) < sizes[:, axis, None]).astype(jnp.float32)
        for axis, length in ((0, h), (1, w))
    )
    count = sizes.prod(1).astype(jnp.float32)[:, None, None, None]

    def summed(x: Array) -> Array:
        # Products: a plain sum over millions of pixels would lose digits.
        x = jnp.einsum("bhwc,bw->bhc", x, _like(columns, x), precision=lax.Precision.HIGHEST)
        x = jnp.einsum("bhc,bh->bc", x, _like(rows, x), precision=lax.Precision.HIGHEST)
        return x[:, None, None]

    mean = summed(image) / count
    variance = summed(jnp.square(image - mean)) / jnp.maximum(count - 1, 1)
    return mean, jnp.sqrt(variance + _EPSILON)


def _like(mask: Array, x: Array) -> Array:
    return jnp.broadcast_to(mask, (x.shape[0], mask.shape[1]))


def _coarse(image: Array, sizes: Sizes) -> Array:
    """Blurred by (1 2 1)/4 along both axes, at distances 1, 2, 4, 8 and 16."""
    for level in range(_WAVELET_LEVELS):
        for axis in (1, 2):
            last = None if sizes is None else sizes[:, axis - 1] - 1
            image = _blur(image, 2**level, axis, last)
    return image


def _blur(image: Array, distance: int, axis: int, last: Array | None) -> Array:
    """Beyond its ends an image goes on as at them; `last` (b) is where it ends, if not with the
    canvas."""
    length = image.shape[axis]
    if last is None:
        margins = [(distance, distance) if i == axis else (0, 0) for i in range(image.ndim)]
        padded = jnp.pad(image, margins, "edge")
        before, after = (
            lax.slice_in_dim(padded, start, start + length, axis=axis)
            for start in (0, 2 * distance)
        )
    else:
        positions = jnp.arange(length)
        before = jnp.take(image, jnp.maximum(positions - distance, 0), axis)
        ends = jnp.minimum(positions + distance, last[:, None])  # b length
        after = jax.vmap(lambda x, index: jnp.take(x, index, axis - 1))(image, ends)
    return 0.25 * before + 0.5 * image + 0.25 * after


# sRGB's primaries and white (D65), as in IEC 61966-2-1.
_RGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_TO_XYZ = _RGB_TO_XYZ.T / _RGB_TO_XYZ.sum(1)  # so that white is 1 1 1
_LAB_BREAK = 6 / 29


def _to_lab(image: Array) -> Array:
    linear = jnp.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    xyz = _product(linear, _TO_XYZ)
    f = jnp.where(xyz > _LAB_BREAK**3, jnp.cbrt(xyz), xyz / (3 * _LAB_BREAK**2) + 4 / 29)
    x, y, z = jnp.moveaxis(f, -1, 0)
    # L*/100, a*/100, b*/100
    return jnp.stack([1.16 * y - 0.16, 5 * (x - y), 2 * (y - z)], axis=-1)


def _from_lab(values: Array) -> Array:
    lightness, a, b = jnp.moveaxis(values, -1, 0)
    y = (lightness + 0.16) / 1.16
    f = jnp.stack([y + a / 5, y, y - b / 2], axis=-1)
    xyz = jnp.where(f > _LAB_BREAK, f**3, 3 * _LAB_BREAK**2 * (f - 4 / 29))
    linear = jnp.clip(_product(xyz, np.linalg.inv(_TO_XYZ)), 0, 1)
    return jnp.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _product(x: Array, matrix: np.ndarray) -> Array:
    return jnp.matmul(x, jnp.asarray(matrix, jnp.float32), precision=lax.Precision.HIGHEST)
