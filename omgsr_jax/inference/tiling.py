"""The backbone's tiles: the paper's Tiled Diffusion.

They overlap by half and are blended with Gaussian weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

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

    def stride(self, length: int) -> int:
        """From one tile of so many rows or columns to the next."""
        return length - length // 2

    def weights(self, tile: Size) -> np.ndarray:
        return blend_weights(tile)


def count(length: Any, tile: Any, stride: Any) -> Any:
    """How many tiles lie along an axis."""
    return 1 + -(-(length - tile) // stride)


class Sums(NamedTuple):
    """What tiles have added up to so far."""

    number: Array  # of the next tile
    total: Array  # b h w c
    heaviness: Array  # b h w 1


@dataclass(frozen=True)
class Tiles:
    """Latents of any size through a function of tiles, in turns of `at_once` of each of them."""

    size: Size
    tiling: Tiling = field(default_factory=Tiling)  # weighs them where they overlap
    at_once: int = 1

    @property
    def stride(self) -> Size:
        height, width = self.size
        return self.tiling.stride(height), self.tiling.stride(width)

    def on(self, size: Size) -> int:
        """How many tiles lie on latents of this height and width."""
        rows, columns = (count(*axis) for axis in zip(size, self.size, self.stride, strict=True))
        return rows * columns

    def turns(self, size: Size) -> int:
        """For latents of this height and width."""
        return -(-self.on(size) // self.at_once)

    def begun(self, z: Array) -> Sums:
        zeros = jnp.zeros(z.shape, jnp.float32)
        return Sums(jnp.zeros((), jnp.int32), zeros, zeros[..., :1])

    def cut(self, z: Array, sizes: Array, sums: Sums) -> Array:
        """The next tiles of latents (b h w c) whose sizes are b 2: (b at_once) t t c."""
        c = z.shape[-1]

        def one(z: Array, corner: Array) -> Array:
            return lax.dynamic_slice(z, (*corner, 0), (*self.size, c))

        tiles = jax.vmap(jax.vmap(one, (None, 0)))(z, self._corners(sizes, sums)[0])
        return tiles.reshape(-1, *self.size, c)

    def added(self, sums: Sums, found: Array, sizes: Array) -> Sums:
        """With what the function gave for them."""
        corners, exist = self._corners(sizes, sums)
        found = found.reshape(len(sizes), self.at_once, *self.size, -1)
        weight = jnp.asarray(self.tiling.weights(self.size), jnp.float32)[..., None]
        total, heaviness = sums.total, sums.heaviness
        for k in range(self.at_once):
            share = weight * exist[:, k, None, None, None]
            total = _added(total, found[:, k] * share, corners[:, k])
            heaviness = _added(heaviness, share, corners[:, k])
        return Sums(sums.number + self.at_once, total, heaviness)

    def mean(self, sums: Sums) -> Array:
        there = sums.heaviness > 0
        return jnp.where(there, sums.total / jnp.where(there, sums.heaviness, 1), 0)

    def _corners(self, sizes: Array, sums: Sums) -> tuple[Array, Array]:  # b at_once 2, b at_once
        """Top left corners of the next tiles, and 1 or 0 for whether there are such.

        They go down the columns; the last of a row or column ends with it.
        """
        number = sums.number + jnp.arange(self.at_once)
        tile, stride = jnp.array(self.size), jnp.array(self.stride)
        counts = count(sizes, tile, stride)  # b 2
        along = jnp.stack([number % counts[:, :1], number // counts[:, :1]], axis=-1)
        last = (sizes - tile)[:, None]
        exist = number < counts.prod(1, keepdims=True)
        return jnp.minimum(along * stride, last), exist.astype(jnp.float32)


def in_tiles(function: Callable[[Array], Array], z: Array, tiles: Tiles) -> Array:
    """A function of tiles on latents (b h w c) that fill their canvas."""
    size = z.shape[1], z.shape[2]
    if size == tiles.size:
        return function(z)
    sizes = jnp.broadcast_to(jnp.array(size), (len(z), 2))

    def turn(_: Array, sums: Sums) -> Sums:
        return tiles.added(sums, function(tiles.cut(z, sizes, sums)), sizes)

    return tiles.mean(lax.fori_loop(0, tiles.turns(size), turn, tiles.begun(z)))


def _added(total: Array, part: Array, corners: Array) -> Array:  # b H W c, b h w c, b 2
    """`total` with a part added to each of its images, at its corner."""

    def one(total: Array, part: Array, corner: Array) -> Array:
        there = lax.dynamic_slice(total, (*corner, 0), part.shape)
        return lax.dynamic_update_slice(total, there + part, (*corner, 0))

    return jax.vmap(one)(total, jnp.broadcast_to(part, (len(total), *part.shape[1:])), corners)
