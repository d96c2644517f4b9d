"""Overlapping windows, the paper's phi: how a network sees images larger than its own size."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from ..models.ops.rows import undivided


def starts(length: int, window: int) -> list[int]:
    """Where the windows along one axis begin: as few as cover it, spread evenly.

    A window that is longer than the axis is cut to it.
    """
    count = -(-length // window)
    return [int(start) for start in np.linspace(0, max(length - window, 0), count)]


def chunks(x: Array, window: int) -> Array:
    """All windows of all images as one batch: b h w c -> (b n) p p c, an image's windows together.

    Every pixel is in at least one window.
    """
    x = undivided(x)  # windows begin anywhere, and an image is small beside what is computed of it
    _, h, w, c = x.shape
    high, wide = min(window, h), min(window, w)
    windows = [
        x[:, top : top + high, left : left + wide]
        for top in starts(h, window)
        for left in starts(w, window)
    ]
    return jnp.stack(windows, axis=1).reshape(-1, high, wide, c)
