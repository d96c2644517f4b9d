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
    h, w = planes.shape[1:]
    scale = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    steps = jnp.clip((table * scale + 50) // 100, 1, 255).astype(planes.dtype)
    steps = jnp.tile(steps, (h // 8, w // 8))
    coefficients = jnp.round(_on_tiles(_DCT, planes - 128) / steps) * steps
    return jnp.clip(jnp.round(_on_tiles(_DCT.T, coefficients) + 128), 0, 255)


def _halve(planes: jax.Array) -> jax.Array:
    """Means of 2 x 2 pixels, rounded up and down in turn along a row, as libjpeg does."""
    total = _on_tiles(np.ones((1, 2), np.float32), planes)
    bias = 1 + jnp.arange(total.shape[2]) % 2
    return jnp.floor((total + bias) / 4)


def _double(planes: jax.Array) -> jax.Array:
    """Weights 3/4 and 1/4 of the nearest two samples on either axis, rounded once at the end."""
    rows, columns = (_triangle_filter(n) for n in planes.shape[1:])
    doubled = jnp.einsum("yh,chw,xw->cyx", rows, planes, columns, precision=_PRECISION)
    bias = jnp.where(jnp.arange(doubled.shape[2]) % 2 == 0, 8, 7) / 16
    return jnp.floor(doubled + bias)


def _on_tiles(matrix: np.ndarray, planes: jax.Array) -> jax.Array:
    """`matrix` applied to every block of its width, along rows and along columns.

    Blocks of 2 or 8 pixels suit no accelerator, so a tile of them is one product with a
    block-diagonal matrix.
    """
    c, h, w = planes.shape
    th, tw = _tile(h), _tile(w)
    rows, columns = (np.kron(np.eye(t // matrix.shape[1]), matrix) for t in (th, tw))
    tiles = planes.reshape(c, h // th, th, w // tw, tw)
    tiles = jnp.einsum("uy,ciyjx->ciujx", rows.astype(np.float32), tiles, precision=_PRECISION)
    tiles = jnp.einsum("vx,ciujx->ciujv", columns.astype(np.float32), tiles, precision=_PRECISION)
    return tiles.reshape(c, h * rows.shape[0] // th, w * columns.shape[0] // tw)


def _tile(n: int) -> int:
    """The largest divisor of n up to 128 that is a multiple of 8."""
    return max(t for t in range(8, 129, 8) if n % t == 0)


def _triangle_filter(n: int) -> np.ndarray:
    """2n x n: each sample weighs 3/4 in two pixels and 1/4 in their outer neighbours."""
    centre = np.arange(2 * n) // 2
    neighbour = np.clip(centre + np.where(np.arange(2 * n) % 2, 1, -1), 0, n - 1)
    return (0.75 * np.eye(n)[centre] + 0.25 * np.eye(n)[neighbour]).astype(np.float32)
