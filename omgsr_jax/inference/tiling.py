"""Where tiles lie, and how they are joined.

The backbone's tiles overlap by half and are blended with Gaussian weights: the paper's Tiled
Diffusion. The VAE's tiles overlap by a halo, which is cut off again; what remains of them abuts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from .sizes import Size

_VARIANCE = 0.01


def overlapping_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles along one axis begin; the last one ends with the axis."""
    count = 1 + max(0, -(-(length - tile) // (tile - overlap)))
    return [min(i * (tile - overlap), length - tile) for i in range(count)]


def latent_tiles(size: Size, tile: int) -> list[tuple[int, int]]:
    """Top left corners of the backbone's tiles in latents of `size`."""
    return [
        (top, left)
        for left in overlapping_starts(size[1], tile, tile // 2)
        for top in overlapping_starts(size[0], tile, tile // 2)
    ]


@lru_cache(maxsize=8)
def blend_weights(tile: int, middle_row: float | None = None) -> np.ndarray:
    """Gaussian weights of a tile (h w), about its centre unless another row is given."""

    def profile(middle: float) -> np.ndarray:
        offset = (np.arange(tile) - middle) / tile
        return np.exp(-np.square(offset) / (2 * _VARIANCE)) / np.sqrt(2 * np.pi * _VARIANCE)

    centre = (tile - 1) / 2
    return np.outer(profile(centre if middle_row is None else middle_row), profile(centre))


class Tiling:
    """How latents are cut for the backbone, and how heavy a tile's pixels are."""

    def shape(self, latents: Size, side: int) -> Size:
        """That of a tile whose side should be `side`."""
        side = min(side, *latents)
        return side, side

    def weights(self, side: int) -> np.ndarray:
        return blend_weights(side)


def blend(
    size: Size, placed: Iterable[tuple[tuple[int, int], np.ndarray]], weights: np.ndarray
) -> np.ndarray:
    """The weighted mean of tiles (h w c) at their places: h w c."""
    total, contributors = None, np.zeros((*size, 1))
    tile, weight = len(weights), weights[..., None]
    for (top, left), values in placed:
        if total is None:
            total = np.zeros((*size, values.shape[-1]))
        window = np.s_[top : top + tile, left : left + tile]
        total[window] += values * weight
        contributors[window] += weight
    assert total is not None
    return (total / contributors).astype(np.float32)


@dataclass(frozen=True)
class Window:
    """A part of an image on a canvas: what the canvas shows, and the core that is used of it.

    All numbers are pixels of the image; the core lies within the window.
    """

    top: int
    left: int
    height: int
    width: int
    core: tuple[int, int, int, int]  # top, bottom, left, right

    @property
    def core_on_canvas(self) -> tuple[int, int, int, int]:
        top, bottom, left, right = self.core
        return top - self.top, bottom - self.top, left - self.left, right - self.left

    @property
    def share(self) -> int:
        top, bottom, left, right = self.core
        return (bottom - top) * (right - left)


def windows(size: Size, canvas: Size, halo: int, multiple: int) -> list[Window]:
    """An image of `size` seen through canvases: one if it fits, else as many as it takes.

    The cores abut and cover the image; around each lies at least `halo` of the image, unless it
    ends there. All edges are multiples of `multiple`, as those of image and canvas must be.
    """
    rows, columns = (
        _spans(length, extent, halo, multiple) for length, extent in zip(size, canvas, strict=True)
    )
    return [
        Window(top, left, height, width, (*core_rows, *core_columns))
        for top, height, core_rows in rows
        for left, width, core_columns in columns
    ]


def _spans(
    length: int, extent: int, halo: int, multiple: int
) -> list[tuple[int, int, tuple[int, int]]]:
    """Start, extent and core of the windows along one axis."""
    if length <= extent:
        return [(0, length, (0, length))]
    starts = overlapping_starts(length, extent, 2 * halo)
    between = [
        (start + following + extent) // (2 * multiple) * multiple
        for start, following in pairwise(starts)
    ]
    cuts = [0, *between, length]
    return [(start, extent, core) for start, core in zip(starts, pairwise(cuts), strict=True)]
