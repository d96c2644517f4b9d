"""Maps cut into strips of rows that lie side by side in the batch, for TPUs.

XLA's convolution on TPUs has the batch in its registers' rows, eight of them. Of a smaller batch it
makes eight itself, but by columns, and it writes every map several times on the way: into the new
batch, its edges, and back, in fp32 before a norm. With the batch made here, a convolution reads its
input where it lies, and the neighbours' rows with it.

Every operation cuts its input and joins its output; between two of them, XLA takes out both.
"""

import jax.numpy as jnp
from jax import Array, lax

from . import direct, rows
from .direct import Padding

_COUNT = 8
_FEWEST_ROWS = 2  # of a strip; with one, two thirds of what is read are its neighbours


def count() -> int:
    """How many strips there are: of devices that share an image, each has as many as one has."""
    return _COUNT * rows.devices()


def fit(x: Array, stride: int = 1) -> bool:
    """Can `x` (b h w c) be cut so that a convolution with this stride goes by strips?"""
    return x.ndim == 4 and x.shape[1] % (count() * stride) == 0 and _rows(x) >= _FEWEST_ROWS


def _rows(x: Array) -> int:  # b h w c
    return int(x.shape[1]) // count()


def cut(x: Array) -> Array:  # b (s h) w c -> b s h w c
    b, h, w, c = x.shape
    return x.reshape(b, count(), h // count(), w, c)


def joined(x: Array) -> Array:  # b s h w c -> b (s h) w c
    b, s, h, w, c = x.shape
    return x.reshape(b, s * h, w, c)


def takes(x: Array, kernel: Array, padding: Padding, stride: int) -> bool:
    """Does a strip keep its share of rows, and see no further than the strips next to it?"""
    if not fit(x, stride):
        return False
    (above, bottom), _ = padding
    below, height = _rows_below(kernel, above, stride), x.shape[1]
    all_rows = (height + above + bottom - kernel.shape[0]) // stride + 1 == height // stride
    return all_rows and 0 <= below <= bottom and max(above, below) <= _rows(x)


def takes_doubled(x: Array, kernel: Array) -> bool:
    """Is the kernel of all phases, four times the size, less than the map that is not made?"""
    b, h, w, _ = x.shape
    return fit(x) and b * h * w >= 9 * kernel.shape[-1]


def _rows_below(kernel: Array, above: int, stride: int) -> int:
    """How many rows below its strip the strip's last output sees."""
    return int(kernel.shape[0]) - stride - above


def convolve(
    x: Array, kernel: Array, bias: Array | None, *, padding: Padding, stride: int = 1
) -> Array:
    """`direct.convolve` strip by strip, plus `bias`."""
    (above, _), columns = padding
    below = _rows_below(kernel, above, stride)
    y = _batch(_with_neighbours(cut(x), above, below))
    y = direct.plus(direct.convolve(y, kernel, ((0, 0), columns), stride), bias)
    return joined(y.reshape(-1, count(), *y.shape[1:]))


def convolve_doubled(x: Array, kernel: Array, bias: Array | None) -> Array:
    """`x` (b h w c) with every pixel doubled, under a 3 x 3 kernel with padding 1, plus `bias`.

    The doubled map is not made. A pixel's four outputs are one convolution with two more axes,
    along which the image is one pixel long and the kernel as long as there are phases.
    """
    y = _batch(_with_neighbours(cut(x), 1, 1))
    y = lax.conv_general_dilated(
        y[:, :, None, :, None],
        _phases(kernel),
        (1, 1, 1, 1),
        ((0, 0), (1, 1), (1, 1), (1, 1)),
        dimension_numbers=("NHXWYC", "HXWYIO", "NHXWYC"),
    )  # (b s) h 2 w 2 o
    y = direct.plus(y, bias)
    _, h, _, w, _, o = y.shape
    return joined(y.reshape(-1, count(), 2 * h, 2 * w, o))


def _phases(kernel: Array) -> Array:  # 3 3 c o -> 3 2 3 2 c o
    """Which weights the pixels before, at and after one have in its two outputs, along each axis.

    The second comes first: the pixel lies between zeros, and meets a kernel's last weight first.
    """
    of_phase = jnp.array([[[0, 0, 0], [1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1], [0, 0, 0]]])
    of_phase = of_phase.astype(jnp.float32)  # p to from
    phases = jnp.einsum("pit,qju,tuco->ipjqco", of_phase, of_phase, kernel.astype(jnp.float32))
    return phases.astype(kernel.dtype)


def _batch(x: Array) -> Array:  # b s h w c -> (b s) h w c
    return x.reshape(-1, *x.shape[2:])


def _with_neighbours(x: Array, above: int, below: int) -> Array:
    """Every strip with so many rows of those above and below it, zeros at the map's ends."""
    before = jnp.pad(x[:, :-1, x.shape[2] - above :], ((0, 0), (1, 0), *((0, 0),) * 3))
    after = jnp.pad(x[:, 1:, :below], ((0, 0), (0, 1), *((0, 0),) * 3))
    return jnp.concatenate([before, x, after], axis=2)  # b s above+h+below w c
