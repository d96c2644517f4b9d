"""3 x 3 convolutions of small maps on CPUs by Winograd's F(2x2, 3x3): 16 products for 4 outputs.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. It saves less than
winograd.py's tiles and loses half the digits. A product of its own for each of a tile's sixteen
values means that nothing is gathered into one array: where a map has many channels and few pixels
that, and the transform of the kernel, decide.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from .winograd import framed

_TILE, _REACH = 2, 4  # pixels of a tile that are put out, and that are read


def fits(h: int, w: int) -> bool:
    """Can images of this size be divided into tiles?"""
    return h % _TILE == w % _TILE == 0


@partial(jax.jit, static_argnames="with_halo")
def convolve(x: Array, kernel: Array, *, with_halo: bool = False) -> Array:
    """What `winograd.convolve` is, where `fits` holds."""
    padded = framed(x, with_halo)
    b, h, w, c = padded.shape[0], padded.shape[1] - 2, padded.shape[2] - 2, padded.shape[3]
    tiles = (b, h // _TILE, w // _TILE, -1)
    columns = lax.optimization_barrier(_of_input(padded, axis=2))  # 4 of b h+2 w/2 c
    products = []
    for v_column, u_column in zip(columns, _of_kernel(kernel, axis=1), strict=True):
        v, u = _of_input(v_column, axis=1), _of_kernel(u_column, axis=0)  # 4 of b h/2 w/2 c, c o
        m = [(a.reshape(-1, c) @ k).reshape(tiles) for a, k in zip(v, u, strict=True)]
        products.append(_of_output(m))  # an upper and a lower row
    upper, lower = (_of_output(list(row)) for row in zip(*products, strict=True))
    y = jnp.stack([jnp.stack(upper, axis=3), jnp.stack(lower, axis=3)], axis=2)
    return y.reshape(b, h, w, -1)  # of b h/2 2 w/2 2 o


def _of_kernel(kernel: Array, axis: int) -> list[Array]:
    """Three taps along `axis`, which goes, to four values."""
    first, middle, last = (lax.index_in_dim(kernel, i, axis, keepdims=False) for i in range(3))
    return [first, (first + middle + last) / 2, (first - middle + last) / 2, last]


def _of_input(x: Array, axis: int) -> list[Array]:
    """Pixels along `axis` to four values for each tile."""
    end = x.shape[axis] - _REACH + 1
    d = [lax.slice_in_dim(x, i, i + end, _TILE, axis) for i in range(_REACH)]
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _of_output(m: list[Array]) -> tuple[Array, Array]:
    """Four products to the two pixels of a tile."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]
