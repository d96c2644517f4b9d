"""Bicubic resizing with antialiasing, as PIL does it, by a matrix for the rows and one for columns.

Lengths may be known only when a program runs, so that one program serves images of many sizes.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from .sizes import Size

_CUBIC = -0.5
_REACH = 2  # of the kernel, in samples
_LARGEST_MATRIX = 2**26  # numbers
_LOW_BITS = 8


def resized(x: Array, old: ArrayLike, new: ArrayLike, canvas: Size) -> Array:
    """Images on a canvas of their own, resized onto another canvas.

    Args:
        x: b h w c, fp32. An image begins at the top left.
        old, new: heights and widths before and afterwards, for all images (2) or each (b 2).
        canvas: its height and width. What lies beyond `new` reflects the image.
    """
    old, new = jnp.asarray(old), jnp.asarray(new)
    each = 0 if old.ndim == 2 else None

    def one(x: Array, old: Array, new: Array) -> Array:  # h w c, 2, 2
        x = _along_rows(x, old[0], new[0], canvas[0])
        return _along_rows(x.swapaxes(0, 1), old[1], new[1], canvas[1]).swapaxes(0, 1)

    return jax.vmap(one, (0, each, each))(x, old, new)


def _along_rows(x: Array, old: Array, new: Array, count: int) -> Array:  # n w c -> count w c
    """In blocks of rows whose matrix is not too large."""
    blocks = -(-count * x.shape[0] // _LARGEST_MATRIX)
    size = -(-count // blocks)

    def block(first: Array | int) -> Array:
        rows = jnp.arange(size) + first
        matrix = _weights(rows, x.shape[0], old, new)
        return jnp.einsum("Hh,hwc->Hwc", matrix, x, precision=lax.Precision.HIGHEST)

    if blocks == 1:
        return block(0)
    parts = lax.map(block, jnp.arange(blocks) * size)
    return parts.reshape(-1, *parts.shape[2:])[:count]


def _weights(rows: Array, length: int, old: Array, new: Array) -> Array:  # -> rows length
    """Of every old sample in new ones; those beyond the end of the new are its reflection."""
    rows = jnp.clip(jnp.where(rows < new, rows, 2 * (new - 1) - rows), 0, new - 1)
    whole, rest = _divided(2 * rows + 1, old, 2 * new)  # of the centre, in old samples
    columns = jnp.arange(length)
    offset = (columns - whole[:, None]) + (0.5 - rest.astype(jnp.float32) / (2 * new))[:, None]
    stretch = jnp.maximum(old / new, 1.0)
    weights = jnp.where(columns < old, _cubic(jnp.abs(offset) / stretch), 0)
    return weights / weights.sum(1, keepdims=True)


def _divided(a: Array, b: Array, by: Array) -> tuple[Array, Array]:
    """a b // by and its remainder, for a < by, where a b may be more than an int32 holds."""
    high, low = b >> _LOW_BITS, b & (2**_LOW_BITS - 1)
    whole, rest = jnp.divmod(a * high, by)
    more, rest = jnp.divmod((rest << _LOW_BITS) + a * low, by)
    return (whole << _LOW_BITS) + more, rest


def _cubic(distance: Array) -> Array:
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    far = _CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    return jnp.where(distance <= 1, near, jnp.where(distance < _REACH, far, 0))
