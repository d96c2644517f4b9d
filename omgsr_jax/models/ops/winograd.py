"""3 x 3 convolutions on CPUs by Winograd's F(4x4, 3x3): 36 products for 16 outputs, not 144.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. Every 6 x 6 tile of
the input and every kernel are transformed by sums, multiplied, and the product transformed back.
Tiles overlap by two pixels. It is done in strips of the image whose tiles stay in a cache.

A tile is taken as a polynomial that is evaluated at 0, +-a, +-b and infinity. The usual points are
1 and 2; these lose half as many digits. What is left is five times the rounding of a direct sum.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_A, _B = 5 / 8, 3 / 2
_TILE, _REACH = 4, 6  # pixels of a tile that are put out, and that are read
_STRIP = 2**17  # tiles times channels that are worked on at once: products of fewer rows are slow


def fits(h: int, w: int) -> bool:
    """Can images of this size be divided into tiles?"""
    return h % _TILE == w % _TILE == 0


@partial(jax.jit, static_argnames="with_halo")
def convolve(x: Array, kernel: Array, *, with_halo: bool = False) -> Array:
    """The convolution with zero padding of 1, where `fits` holds: b h w c, 3 3 c o -> b h w o.

    `with_halo`: the rows above and below the image are there already.
    """
    padded = framed(x, with_halo)
    b, h, w, c = padded.shape[0], padded.shape[1] - 2, padded.shape[2] - 2, padded.shape[3]
    u = _of_kernel(_of_kernel(kernel, axis=0), axis=1).reshape(_REACH**2, c, -1)
    rows = _strip_rows(b, h, w, c)

    def of_strip(top: Array) -> Array:
        return _strip(lax.dynamic_slice_in_dim(padded, top, rows + 2, axis=1), u)

    strips = lax.map(of_strip, jnp.arange(0, h, rows))  # strips b rows w o
    return jnp.moveaxis(strips, 0, 1).reshape(b, h, w, -1)


def framed(x: Array, with_halo: bool) -> Array:  # b h w c -> b h+2 w+2 c
    """With a pixel of zeros all around; rows that come with their halo, left and right only."""
    margin = 0 if with_halo else 1
    return jnp.pad(x, ((0, 0), (margin, margin), (1, 1), (0, 0)))


def _strip_rows(b: int, h: int, w: int, c: int) -> int:
    """How many rows have their tiles in a cache together."""
    fitting = [
        rows
        for rows in range(_TILE, h + 1, _TILE)
        if h % rows == 0 and b * rows * w * c <= _STRIP * _TILE**2
    ]
    return max(fitting, default=_TILE)


def _strip(x: Array, u: Array) -> Array:  # b h+2 w+2 c, 36 c o -> b h w o
    b, h, w, c = x.shape[0], x.shape[1] - 2, x.shape[2] - 2, x.shape[3]
    v = _of_input(_of_input(x, axis=1, new=0), axis=3, new=1)  # 6 6 b h/4 w/4 c
    m = jnp.matmul(v.reshape(_REACH**2, -1, c), u)  # 36 tiles o
    m = m.reshape(_REACH, _REACH, b, h // _TILE, w // _TILE, -1)
    columns = [jnp.stack(_of_output(list(row)), axis=3) for row in m]  # b h/4 w/4 4 o
    return jnp.stack(_of_output(columns), axis=2).reshape(b, h, w, -1)


def _of_kernel(kernel: Array, axis: int) -> Array:
    """Three taps along `axis` to six values."""
    taps = [lax.index_in_dim(kernel, i, axis, keepdims=False) for i in range(3)]
    finite = np.array([0, _A, -_A, _B, -_B])
    values = []
    for i, point in enumerate(finite):
        scale = 1 / np.prod(point - np.delete(finite, i))
        values.append(sum(float(scale * point**k) * tap for k, tap in enumerate(taps)))
    return jnp.stack([*values, taps[2]], axis)


def _of_input(x: Array, axis: int, new: int) -> Array:
    """Pixels along `axis` to six values for each tile, which stand along a new axis."""
    tiles = (x.shape[axis] - 2) // _TILE
    d = [lax.slice_in_dim(x, i, i + _TILE * (tiles - 1) + 1, _TILE, axis) for i in range(_REACH)]
    a2, b2 = _A**2, _B**2
    even_a, odd_a = d[4] - b2 * d[2], _A * (d[3] - b2 * d[1])
    even_b, odd_b = d[4] - a2 * d[2], _B * (d[3] - a2 * d[1])
    zero, infinity = (d[i + 4] - (a2 + b2) * d[i + 2] + a2 * b2 * d[i] for i in (0, 1))
    return jnp.stack(
        [zero, even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, infinity], new
    )


def _of_output(m: list[Array]) -> list[Array]:
    """Six products to the four pixels of a tile."""
    even_a, odd_a, even_b, odd_b = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return [
        m[0] + even_a + even_b,
        _A * odd_a + _B * odd_b,
        _A**2 * even_a + _B**2 * even_b,
        _A**3 * odd_a + _B**3 * odd_b + m[5],
    ]
