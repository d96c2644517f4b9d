"""Resizing with PyTorch's arithmetic: a matrix for the rows and one for the columns.

`jax.image.resize` differs from what the networks here were trained with: its cubic kernel is
another one, it renormalises at the border, and it has no area mode.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

_CUBIC = -0.75


def resize_bicubic(x: Array, size: tuple[int, int], offset: float = 0.0) -> Array:
    """b h w c to b h' w' c, as torch's bicubic interpolation without antialiasing.

    `offset` is added to the new size in computing the scale, as DINO does with its positions.
    """
    rows, columns = (
        bicubic_matrix(old, new, (new + offset) / old)
        for old, new in zip(x.shape[1:3], size, strict=True)
    )
    return _resize(x, rows, columns)


def resize_area(x: Array, size: tuple[int, int]) -> Array:
    """b h w c to b h' w' c: every new pixel is the mean of the old ones that it touches."""
    rows, columns = (area_matrix(old, new) for old, new in zip(x.shape[1:3], size, strict=True))
    return _resize(x, rows, columns)


def bicubic_matrix(old: int, new: int, scale: float) -> np.ndarray:
    """The weight of every old sample in every new one: new old."""
    position = (np.arange(new) + 0.5) / scale - 0.5
    first = np.floor(position).astype(int)
    matrix = np.zeros((new, old))
    for i in range(-1, 3):
        index = np.clip(first + i, 0, old - 1)
        np.add.at(matrix, (np.arange(new), index), _cubic(np.abs(position - first - i)))
    return matrix


def _cubic(distance: np.ndarray) -> np.ndarray:
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    far = _CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)


def area_matrix(old: int, new: int) -> np.ndarray:
    """The weight of every old sample in every new one: new old."""
    edges = np.arange(new + 1) * old
    first, end = edges[:-1] // new, -(-edges[1:] // new)
    index = np.arange(old)
    touched = (index >= first[:, None]) & (index < end[:, None])
    return touched / touched.sum(1, keepdims=True)


def _resize(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    y = jnp.einsum("bhwc,Hh,Ww->bHWc", x.astype(jnp.float32), jnp.asarray(rows, jnp.float32),
                   jnp.asarray(columns, jnp.float32))  # fmt: skip
    return y.astype(x.dtype)
