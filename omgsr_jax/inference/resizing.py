"""Bicubic resizing by a matrix for the rows and one for the columns: with antialiasing as PIL does
it, or without as PyTorch's `interpolate` does it.

Lengths may be known only when a program runs, so that one program serves images of many sizes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from .sizes import Size

_PIL, _PYTORCH = -0.5, -0.75  # the cubic's parameter
_REACH = 2  # of the kernel, in samples
_LARGEST_MATRIX = 2**26  # numbers
_LOW_BITS = 8

# Of new samples (their numbers), the old ones' count with the canvas, and both lengths.
Weights = Callable[[Array, int, Array, Array], Array]


def resized(
    x: Array, old: ArrayLike, new: ArrayLike, canvas: Size, *, antialias: bool = True
) -> Array:
    """Images on a canvas of their own, resized onto another canvas.

    Args:
        x: b h w c, fp32. An image begins at the top left.
        old, new: heights and widths before and afterwards, for all images (2) or each (b 2).
        canvas: its height and width. What lies beyond `new` reflects the image.
        antialias: as PIL does, which also sharpens less where it enlarges.
    """
    old, new = jnp.asarray(old), jnp.asarray(new)
    each = 0 if old.ndim == 2 else None
    weights = _antialiasing if antialias else _interpolating

    def one(x: Array, old: Array, new: Array) -> Array:  # h w c, 2, 2
        x = _along_rows(x, old[0], new[0], canvas[0], weights)
        return _along_rows(x.swapaxes(0, 1), old[1], new[1], canvas[1], weights).swapaxes(0, 1)

    return jax.vmap(one, (0, each, each))(x, old, new)


def _along_rows(
    x: Array, old: Array, new: Array, count: int, weights: Weights
) -> Array:  # n w c -> count w c
    """In blocks of rows whose matrix is not too large."""
    blocks = -(-count * x.shape[0] // _LARGEST_MATRIX)
    size = -(-count // blocks)

    def block(first: Array | int) -> Array:
        rows = jnp.arange(size) + first
        rows = jnp.clip(jnp.where(rows < new, rows, 2 * (new - 1) - rows), 0, new - 1)
        matrix = weights(rows, x.shape[0], old, new)
        return jnp.einsum("Hh,hwc->Hwc", matrix, x, precision=lax.Precision.HIGHEST)

    if blocks == 1:
        return block(0)
    parts = lax.map(block, jnp.arange(blocks) * size)
    return parts.reshape(-1, *parts.shape[2:])[:count]


def _antialiasing(rows: Array, length: int, old: Array, new: Array) -> Array:  # -> rows length
    """Weights of every old sample in new ones; what an edge cuts off, the others make up for."""
    whole, rest = _centres(rows, old, new)
    columns = jnp.arange(length)
    offset = (columns - whole[:, None]) + (0.5 - rest)[:, None]
    stretch = jnp.maximum(old / new, 1.0)
    weights = jnp.where(columns < old, _cubic(jnp.abs(offset) / stretch, _PIL), 0)
    return weights / weights.sum(1, keepdims=True)


def _interpolating(rows: Array, length: int, old: Array, new: Array) -> Array:  # -> rows length
    """The four nearest old samples in new ones; beyond an edge the image goes on as at it."""
    whole, rest = _centres(rows, old, new)
    before = rest < 0.5
    first, offset = whole - before, rest - 0.5 + before
    columns = jnp.arange(length)
    weights = jnp.zeros((len(rows), length))
    for tap in range(1 - _REACH, _REACH + 1):
        column = jnp.clip(first + tap, 0, old - 1)[:, None]
        weight = _cubic(jnp.abs(tap - offset), _PYTORCH)[:, None]
        weights += jnp.where(columns == column, weight, 0)
    return weights


def _centres(rows: Array, old: Array, new: Array) -> tuple[Array, Array]:
    """Of new samples, in old ones: the whole ones before, and the share of one."""
    whole, rest = _divided(2 * rows + 1, old, 2 * new)
    return whole, rest.astype(jnp.float32) / (2 * new)


def _divided(a: Array, b: Array, by: Array) -> tuple[Array, Array]:
    """a b // by and its remainder, for a < by, where a b may be more than an int32 holds."""
    high, low = b >> _LOW_BITS, b & (2**_LOW_BITS - 1)
    whole, rest = jnp.divmod(a * high, by)
    more, rest = jnp.divmod((rest << _LOW_BITS) + a * low, by)
    return (whole << _LOW_BITS) + more, rest


def _cubic(distance: Array, a: float) -> Array:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return jnp.where(distance <= 1, near, jnp.where(distance < _REACH, far, 0))
