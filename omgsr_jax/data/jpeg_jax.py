"""JPEG as arithmetic: what libjpeg does to an image between encoding and decoding, in JAX.

Baseline, 4:2:0, integer tables of the quality, chroma upsampled with libjpeg's triangle filter. The
image lies in the top left of a canvas of fixed shape, so that its size may be a traced value.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

Size = tuple[jax.Array | int, jax.Array | int]

# ITU T.81, tables K.1 and K.2; rows are vertical frequencies.
_LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMA_TABLE = np.full((8, 8), 99)
_CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

_RGB_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
_YCC_TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], np.float32)
_CHROMA_CENTRE = np.array([0, 128, 128], np.float32)[:, None, None]

_DCT = np.array(
    [[np.cos((2 * x + 1) * u * np.pi / 16) / 2 for x in range(8)] for u in range(8)], np.float32
)
_DCT[0] /= np.sqrt(2)
_PRECISION = jax.lax.Precision.HIGHEST


def jpeg(image: jax.Array, size: Size, quality: jax.Array) -> jax.Array:
    """`image` is 3 h w in [0, 1] on a canvas of multiples of 16; what lies outside `size` is not
    looked at, and is arbitrary in the result."""
    h, w = size
    rgb = extend_edges(jnp.round(jnp.clip(image, 0, 1) * 255), size)
    ycc = jnp.round(_mix(_RGB_TO_YCC, rgb) + _CHROMA_CENTRE)
    luma = _through_dct(ycc[:1], _LUMA_TABLE, quality)
    chroma = _through_dct(_halve(ycc[1:]), _CHROMA_TABLE, quality)
    chroma = _double(extend_edges(chroma, ((h + 1) // 2, (w + 1) // 2)))
    decoded = jnp.concatenate([luma, chroma]) - _CHROMA_CENTRE
    return jnp.clip(jnp.round(_mix(_YCC_TO_RGB, decoded)), 0, 255) / 255


def extend_edges(image: jax.Array, size: Size) -> jax.Array:
    """c h w, its last row and column inside `size` repeated over the rest of the canvas."""
    for axis, n in zip((1, 2), size, strict=True):
        last = jax.lax.dynamic_index_in_dim(image, n - 1, axis)
        index = jnp.arange(image.shape[axis]).reshape([-1 if a == axis else 1 for a in range(3)])
        image = jnp.where(index < n, image, last)
    return image


def _mix(matrix: np.ndarray, image: jax.Array) -> jax.Array:
    return jnp.einsum("dc,chw->dhw", matrix, image, precision=_PRECISION)


def _through_dct(planes: jax.Array, table: np.ndarray, quality: jax.Array) -> jax.Array:
    """Quantised in the frequency domain and back, to whole levels."""
    c, h, w = planes.shape
    scale = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    steps = jnp.clip((table * scale + 50) // 100, 1, 255)[:, None, :].astype(planes.dtype)  # u 1 v
    blocks = planes.reshape(c, h // 8, 8, w // 8, 8) - 128
    coefficients = jnp.einsum("uy,caybx,vx->caubv", _DCT, blocks, _DCT, precision=_PRECISION)
    coefficients = jnp.round(coefficients / steps) * steps
    blocks = jnp.einsum("uy,caubv,vx->caybx", _DCT, coefficients, _DCT, precision=_PRECISION)
    return jnp.clip(jnp.round(blocks.reshape(c, h, w) + 128), 0, 255)


def _halve(planes: jax.Array) -> jax.Array:
    """Means of 2 x 2 pixels, rounded up and down in turn along a row, as libjpeg does."""
    c, h, w = planes.shape
    total = planes.reshape(c, h // 2, 2, w // 2, 2).sum(axis=(2, 4))
    bias = 1 + jnp.arange(w // 2) % 2
    return jnp.floor((total + bias) / 4)


def _double(planes: jax.Array) -> jax.Array:
    """Weights 3/4 and 1/4 of the nearest two samples on either axis, rounded once at the end."""
    above, below = _neighbours(planes, axis=1)
    rows = _interleave(3 * planes + above, 3 * planes + below, axis=1)
    left, right = _neighbours(rows, axis=2)
    even = jnp.floor((3 * rows + left + 8) / 16)
    odd = jnp.floor((3 * rows + right + 7) / 16)
    return _interleave(even, odd, axis=2)


def _neighbours(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Before and after, the ends repeated."""
    n = x.shape[axis]
    first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
    last = jax.lax.slice_in_dim(x, n - 1, n, axis=axis)
    before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)
    after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, n, axis=axis), last], axis)
    return before, after


def _interleave(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
    shape = list(even.shape)
    shape[axis] *= 2
    return jnp.stack([even, odd], axis=axis + 1).reshape(shape)
