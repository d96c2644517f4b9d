"""3 x 3 convolutions of padding 1 on CPUs, where there is a faster way than XLA's own.

Which way pays was measured on two x86 cores; see docs/benchmarks.md.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from . import winograd

Convolution = Callable[[Array, Array], Array]  # b h w c, 3 3 c o -> b h w o

# Pixels of all images, and channels in and out.
_WINOGRAD_PIXELS, _WINOGRAD_CHANNELS = 64 * 64, 96  # from here on
_PATCHES_PIXELS, _PATCHES_CHANNELS = 16 * 16, 512  # up to here; from here on


def faster(x: Array, kernel: Array) -> Convolution | None:
    """A function that convolves `x` (b h w c) with `kernel` (h w c o) faster than XLA, if any."""
    b, h, w, c = x.shape
    if kernel.shape[:3] != (3, 3, c) or not x.dtype == kernel.dtype == jnp.float32:
        return None
    pixels, channels = b * h * w, min(kernel.shape[2:])
    if pixels <= _PATCHES_PIXELS and channels >= _PATCHES_CHANNELS:
        return through_patches
    # Winograd's sums lose some digits: not where the highest precision is asked for.
    exact = jax.config.values["jax_default_matmul_precision"] in ("highest", "float32")
    if pixels >= _WINOGRAD_PIXELS and channels >= _WINOGRAD_CHANNELS and not exact:
        return winograd.convolve if winograd.fits(h, w) else None
    return None


def through_patches(x: Array, kernel: Array) -> Array:  # b h w c, 3 3 c o -> b h w o
    """One matrix product with the 3 x 3 surroundings of every pixel."""
    _, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(9 * c, -1)
