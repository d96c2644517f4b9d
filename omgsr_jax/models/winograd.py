"""3 x 3 convolutions on CPUs by Winograd's F(2x2, 3x3): 16 products for four outputs, not 36.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. Every 4 x 4 tile of
the input and every kernel are transformed by sums, multiplied, and the product transformed back.
Tiles overlap by two pixels. It is done in strips of the image whose tiles stay in a cache.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_KERNEL_TRANSFORM = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_STRIP_ROWS = 16
# With fewer channels the tiles' transforms cost more than the products that they save, with fewer
# pixels the kernel's does. And each shape of convolution takes most of a second to compile.
_LEAST_CHANNELS = 160
_LEAST_PIXELS = 64 * 64


def pays(x: Array, kernel: Array) -> bool:
    """Is a convolution with padding 1 and stride 1 faster this way?"""
    b, h, w, c = x.shape
    return (
        kernel.shape[:3] == (3, 3, c)
        and min(kernel.shape[2:]) >= _LEAST_CHANNELS
        and b * h * w >= _LEAST_PIXELS
        and x.dtype == kernel.dtype == jnp.float32  # bf16 has no bits to spare for the differences
        and h % _STRIP_ROWS == 0
        and w % 2 == 0
    )


@jax.jit
def convolve(x: Array, kernel: Array) -> Array:  # b h w c, 3 3 c o -> b h w o
    """The convolution with zero padding of 1; `pays` must hold."""
    b, h, w, c = x.shape
    g = jnp.asarray(_KERNEL_TRANSFORM)
    u = jnp.einsum("ia,jb,abco->ijco", g, g, kernel).reshape(16, c, -1)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def of_strip(top: Array) -> Array:
        return _strip(lax.dynamic_slice_in_dim(padded, top, _STRIP_ROWS + 2, axis=1), u)

    strips = lax.map(of_strip, jnp.arange(0, h, _STRIP_ROWS))  # strips b rows w o
    return jnp.moveaxis(strips, 0, 1).reshape(b, h, w, -1)


def _strip(x: Array, u: Array) -> Array:  # b h+2 w+2 c, 16 c o -> b h w o
    b, h, w, c = x.shape[0], x.shape[1] - 2, x.shape[2] - 2, x.shape[3]
    rows = _input_transform([x[:, i : i + h : 2] for i in range(4)])
    tiles = [_input_transform([row[:, :, j : j + w : 2] for j in range(4)]) for row in rows]
    v = jnp.stack([tile.reshape(-1, c) for row in tiles for tile in row])  # 16 tiles c
    m = jnp.matmul(v, u).reshape(4, 4, b, h // 2, w // 2, -1)
    columns = [jnp.stack(_output_transform(list(row)), axis=3) for row in m]  # b h/2 w/2 2 o
    return jnp.stack(_output_transform(columns), axis=2).reshape(b, h, w, -1)


def _input_transform(d: list[Array]) -> list[Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output_transform(m: list[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
