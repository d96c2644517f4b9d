"""The backbone's tiles: the paper's Tiled Diffusion.

They overlap by half and are blended with Gaussian weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .sizes import Size

_VARIANCE = 0.01


@lru_cache(maxsize=8)
def blend_weights(tile: Size, middle_row: float | None = None) -> np.ndarray:
    """Gaussian weights of a tile (h w), about its centre unless another row is given."""

    def profile(length: int, middle: float) -> np.ndarray:
        offset = (np.arange(length) - middle) / length
        return np.exp(-np.square(offset) / (2 * _VARIANCE)) / np.sqrt(2 * np.pi * _VARIANCE)

    (height, width) = tile
    row = (height - 1) / 2 if middle_row is None else middle_row
    return np.outer(profile(height, row), profile(width, (width - 1) / 2))


@dataclass(frozen=True)
class Tiling:
    """How latents are cut for the backbone, and how heavy a tile's pixels are."""

    def shape(self, latents: Size, side: int) -> Size:
        """That of a tile whose side should be `side`."""
        side = min(side, *latents)
        return side, side

    def weights(self, tile: Size) -> np.ndarray:
        return blend_weights(tile)


def count(length: Any, tile: int) -> Any:
    """How many tiles lie along an axis."""
    return 1 + -(-(length - tile) // (tile - tile // 2))


def in_tiles(
    function: Callable[[Array], Array],
    z: Array,
    sizes: Any,
    weights: np.ndarray,
    *,
    at_once: int = 1,
    spread: Callable[[Array], Array] = lambda tiles: tiles,
) -> Array:
    """`function`, which maps tiles of latents to such, on latents of any size.

    Args:
        z: b h w c.
        sizes: their heights and widths: of all (2), or of each (b 2), what lies beyond being 0.
        weights: of a tile (h w), in the weighted mean where tiles overlap.
        at_once: tiles of each of the latents that are computed together.
        spread: divides tiles (of the first axis) among devices.
    """
    b, *canvas, c = z.shape
    tile = weights.shape
    if tuple(canvas) == tile:
        return function(z)
    lengths = jnp.broadcast_to(jnp.asarray(sizes), (b, 2))
    counts = count(lengths, np.array(tile))  # b 2
    if np.ndim(sizes) == 1:
        turns = -(-int(np.prod(count(np.array(sizes), np.array(tile)))) // at_once)
    else:
        turns = -(-counts.prod(1).max() // at_once)
    weight = jnp.asarray(weights, jnp.float32)[..., None]
    cut = jax.vmap(jax.vmap(lambda z, at: lax.dynamic_slice(z, (*at, 0), (*tile, c)), (None, 0)))

    def turn(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        number = i * at_once + jnp.arange(at_once)  # of a tile, down the columns
        corners, exists = _corners(number, lengths, counts, tile)
        tiles = spread(cut(z, corners).reshape(b * at_once, *tile, c))
        found = function(tiles).reshape(b, at_once, *tile, c)
        for k in range(at_once):
            share = weight * exists[:, k, None, None, None]
            sums = tuple(
                _added(total, part, corners[:, k])
                for total, part in zip(sums, (found[:, k] * share, share), strict=True)
            )
        return sums

    zeros = jnp.zeros(z.shape, jnp.float32)
    total, heaviness = lax.fori_loop(0, turns, turn, (zeros, zeros[..., :1]))
    return jnp.where(heaviness > 0, total / jnp.where(heaviness > 0, heaviness, 1), 0)


def _corners(
    number: Array, lengths: Array, counts: Array, tile: Size
) -> tuple[Array, Array]:  # k, b 2, b 2 -> b k 2, b k
    """Top left corners of tiles by their numbers, and which of them there are.

    The last of a row or column ends with it.
    """
    along = jnp.stack([number % counts[:, :1], number // counts[:, :1]], axis=-1)
    steps = jnp.array([side - side // 2 for side in tile])
    last = lengths - jnp.array(tile)
    exists = number < counts.prod(1, keepdims=True)
    return jnp.minimum(along * steps, last[:, None]), exists.astype(jnp.float32)


def _added(total: Array, part: Array, corners: Array) -> Array:  # b H W c, b h w c, b 2
    """`total` with a part added to each of its images, at its corner."""

    def one(total: Array, part: Array, at: Array) -> Array:
        there = lax.dynamic_slice(total, (*at, 0), part.shape)
        return lax.dynamic_update_slice(total, there + part, (*at, 0))

    return jax.vmap(one)(total, part, corners)
