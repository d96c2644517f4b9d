"""The VAE for images that do not fit the memory: its outer halves in tiles, its inner halves whole.

Convolutions need a halo around a tile. Group norms need the statistics of the whole image, which
depend on those of the norms before them. They are found in sweeps over all tiles:

1. A mosaic of crops from all over the image gives first statistics.
2. All tiles are computed with these, which gives statistics of the whole image under them.
3. Each further sweep uses the statistics of the last one; as these were counted under other
   statistics in the earlier norms, a tile moves them by as much as its own have moved.

Sweeps end when the statistics stand still.
"""

import numpy as np

from . import canvas_vae
from .programs import Programs, Tile
from .sizes import Size
from .tiling import Window, windows

HALO = 8  # latent pixels
_MOSAIC = 4  # crops per side
_SWEEPS = 8
_STILL = 1e-3  # relative change of statistics at which sweeps end


def encode(
    programs: Programs, image: np.ndarray, canvas: Size, inner: Size
) -> tuple[np.ndarray, int]:
    """An image (h w 3) to its posterior (h/8 w/8 2c), and the number of tiles."""
    features, count = _sweep(programs, image, canvas, encode=True)
    ((posterior, _),) = programs.vae("inner", inner, [Tile(features)], encode=True)
    return posterior, count


def decode(
    programs: Programs, latents: np.ndarray, canvas: Size, inner: Size
) -> tuple[np.ndarray, int]:
    """Scaled latents (h/8 w/8 c) to an image, and the number of tiles."""
    ((features, _),) = programs.vae("inner", inner, [Tile(latents)], encode=False)
    return _sweep(programs, features, canvas, encode=False)


def _sweep(
    programs: Programs, source: np.ndarray, canvas: Size, *, encode: bool
) -> tuple[np.ndarray, int]:
    """The outer half on all of `source`, as if it were whole."""
    down = programs.config.downsampling
    ratio, onto = (1, down) if encode else (down, 1)
    size = (source.shape[0] * ratio, source.shape[1] * ratio)
    halo = min(HALO * down, min(canvas) // 4 // down * down)
    parts = windows(size, canvas, halo, down)
    seen = [_cut(source, part, ratio) for part in parts]

    mosaic = Tile(_mosaic(source, (canvas[0] // ratio, canvas[1] // ratio)))
    ((_, statistics),) = programs.vae("outer", canvas, [mosaic], encode=encode)
    before: list[np.ndarray | None] = [None] * len(parts)
    mode = canvas_vae.SHARED
    for _ in range(_SWEEPS):
        tiles = [
            Tile(array, part.core_on_canvas, mode, statistics, own)
            for array, part, own in zip(seen, parts, before, strict=True)
        ]
        result, counted = None, []
        outcome = programs.vae("outer", canvas, tiles, encode=encode)
        for part, (found, own) in zip(parts, outcome, strict=True):
            if result is None:
                shape = (size[0] // onto, size[1] // onto, found.shape[-1])
                result = np.empty(shape, np.float32)
            _paste(result, found, part, onto)
            counted.append(own)
        before, last = list(counted), statistics
        statistics = _combined(counted, parts)
        mode = canvas_vae.DRIFTED
        if _change(statistics, last) < _STILL:
            break
    assert result is not None
    return result, len(parts)


def _cut(source: np.ndarray, part: Window, ratio: int) -> np.ndarray:
    top, left = part.top // ratio, part.left // ratio
    return source[top : top + part.height // ratio, left : left + part.width // ratio]


def _paste(result: np.ndarray, found: np.ndarray, part: Window, onto: int) -> None:
    top, bottom, left, right = (edge // onto for edge in part.core)
    inner_top, inner_bottom, inner_left, inner_right = (
        edge // onto for edge in part.core_on_canvas
    )
    result[top:bottom, left:right] = found[inner_top:inner_bottom, inner_left:inner_right]


def _mosaic(source: np.ndarray, canvas: Size) -> np.ndarray:
    """As many pixels as a canvas has, in crops that are spread evenly over the image."""
    rows, columns = (
        [slice(start, start + extent) for start in starts]
        for starts, extent in (
            _spread(length, side) for length, side in zip(source.shape[:2], canvas, strict=True)
        )
    )
    return np.concatenate(
        [np.concatenate([source[row, column] for column in columns], axis=1) for row in rows]
    )


def _spread(length: int, side: int) -> tuple[list[int], int]:
    """Starts of equally long, evenly spread crops, and their length."""
    if length <= side:
        return [0], length
    extent = side // _MOSAIC
    return [round(start) for start in np.linspace(0, length - extent, _MOSAIC)], extent


def _combined(counted: list[np.ndarray], parts: list[Window]) -> np.ndarray:
    """Mean and variance over all tiles' cores (k g 2)."""
    share = np.array([part.share for part in parts], np.float64)
    share = (share / share.sum())[:, None, None]
    means, variances = (np.stack([tile[..., i] for tile in counted]) for i in (0, 1))
    mean = (share * means).sum(0)
    variance = (share * (variances + np.square(means - mean))).sum(0)
    return np.stack([mean, variance], axis=-1).astype(np.float32)


def _change(statistics: np.ndarray, last: np.ndarray) -> float:
    """The largest change of a mean (in deviations) or a deviation (relative)."""
    deviation = np.sqrt(last[..., 1]) + 1e-6
    means = np.abs(statistics[..., 0] - last[..., 0]) / deviation
    deviations = np.abs(np.sqrt(statistics[..., 1]) - np.sqrt(last[..., 1])) / deviation
    return float(max(means.max(initial=0), deviations.max(initial=0)))
