"""Whether the original's detail is there, in its place and at its strength."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_LIMITS = (1 / 4, 1 / 8, 1 / 16)  # cycles a pixel, between the bands and below the last one
_STRENGTHS = (0.0, 0.1, 0.0)  # how much contrast alone counts in each band
WINDOW = 16  # px, over which detail is compared
_FLOOR = (2 / 255) ** 2  # of power: a grey level, below which there is no detail
_LUMA = (0.299, 0.587, 0.114)


def detail(x_p: Array, x_h: Array) -> Array:
    """1 - likeness, and a share of 1 - contrast, of bands p and h of the images' luma.

    likeness = 2 <p, h> / (<p, p> + <h, h>), with <., .> the mean product over a window, holds
    SSIM's terms for structure and contrast: it grows with the correlation, and for a given one it
    is largest where p is as strong as h. So it does not blur what is uncertain, as L1 does, and
    strength in the wrong place gains nothing.

    contrast = 2 |p| |h| / (<p, p> + <h, h>) holds p to its strength also where the correlation is
    small and likeness hardly changes: at 1/8 to 1/4, beyond what an input of a quarter of the size
    can hold. In a finer band that would be grain, in a coarser one too much contrast.
    """
    bands = zip(_bands(x_p), _bands(x_h), _STRENGTHS, strict=True)
    return jnp.stack([_unlikeness(*band) for band in bands]).mean()


def _unlikeness(p: Array, h: Array, strength: float) -> Array:
    both, own, theirs = (_pooled(x) for x in (p * h, jnp.square(p), jnp.square(h)))
    power = own + theirs + _FLOOR
    likeness = (2 * both + _FLOOR) / power
    strengths = jnp.sqrt((own + _FLOOR**2) * (theirs + _FLOOR**2))  # at 0, a root has no gradient
    contrast = (2 * strengths + _FLOOR) / power
    return (1 - likeness).mean() + strength * (1 - contrast).mean()


def _bands(x: Array) -> list[Array]:
    """b h w 3 -> b h w each, the finest first."""
    luma = (x.astype(jnp.float32) * jnp.asarray(_LUMA)).sum(-1)
    below = [luma, *(_below(luma, limit) for limit in _LIMITS)]
    return [more - less for more, less in pairwise(below)]


def _below(x: Array, limit: float) -> Array:
    """What changes more slowly than `limit` along both axes."""
    rows, columns = (_low_pass(side, limit) for side in x.shape[1:3])
    return jnp.einsum("kh,bhw,lw->bkl", rows, x, columns, precision="highest")


def _low_pass(side: int, limit: float) -> np.ndarray:
    """Over cosines, which continue images by their mirror; it falls in half an octave: n n."""
    wave, place = np.arange(side)[:, None], np.arange(side) + 0.5
    cosines = np.cos(np.pi / side * wave * place) * np.sqrt(np.where(wave, 2, 1) / side)
    octaves = np.log2(np.maximum(wave, 1e-9) / (2 * side) / limit)
    passed = 0.5 + 0.5 * np.cos(np.pi * np.clip(2 * octaves + 0.5, 0, 1))
    return (cosines.T @ (passed * cosines)).astype(np.float32)


def _pooled(x: Array) -> Array:
    """The mean over windows that overlap by half."""
    window, strides = (1, WINDOW, WINDOW), (1, WINDOW // 2, WINDOW // 2)
    return lax.reduce_window(x, 0.0, lax.add, window, strides, "VALID") / WINDOW**2
