"""PSNR and SSIM, on luma or on RGB: batched, jitted, with the conventions of the papers' tables.

Images are uint8, or floats in [0, 1], of shape `b h w 3`; the result has shape `b`. The numbers are
those of the `pyiqa` package, which the compared papers call with `test_y_channel=True,
color_space="ycbcr"`. Everything is elementwise fp32, so no accelerator's matrix unit rounds it.
"""

import operator
from collections.abc import Iterable, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

# ITU-R BT.601, studio swing: Y in [16, 235] for R, G, B in [0, 1].
LUMA = (65.481, 128.553, 24.966)
LUMA_OFFSET = 16.0

PSNR_EPS = 1e-8  # keeps identical images finite: at most 80 dB
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


@partial(jax.jit, static_argnames=("luma", "crop_border"))
def psnr(sr: ArrayLike, hr: ArrayLike, *, luma: bool = True, crop_border: int = 0) -> jax.Array:
    """Peak signal-to-noise ratio in dB, of unrounded luma or over all of RGB."""
    difference = to_unit(crop(sr, crop_border)) - to_unit(crop(hr, crop_border))
    if luma:
        # The conversion is linear: its offset cancels, and small differences keep all their bits.
        difference = weigh(LUMA, channels(difference)) / 255
    mse = jnp.mean(jnp.square(difference).reshape(len(difference), -1), axis=1)
    return -10 * jnp.log10(mse + PSNR_EPS)


@partial(jax.jit, static_argnames=("luma", "crop_border"))
def ssim(sr: ArrayLike, hr: ArrayLike, *, luma: bool = True, crop_border: int = 0) -> jax.Array:
    """Structural similarity: Wang et al., IEEE Transactions on Image Processing 13(4), 2004.

    An 11x11 Gaussian window (sigma 1.5) wherever it fits entirely; channels rounded to 8 bits; the
    contrast-structure term clipped at 0 and no downsampling, as in `pyiqa`. RGB is the mean of the
    three channels.
    """
    x, y = (_planes_8bit(crop(image, crop_border), luma) for image in (sr, hr))  # b c h w
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    # Variances do not depend on the origin; moved to the reference's mean, the numbers whose
    # squares are subtracted below are small, and so is fp32's rounding.
    origin = jnp.round(jnp.mean(y, axis=(2, 3), keepdims=True))
    x, y = x - origin, y - origin
    mean_x, mean_y, xx, yy, xy = _blur(jnp.stack([x, y, x * x, y * y, x * y]))
    var_x, var_y, cov = xx - mean_x * mean_x, yy - mean_y * mean_y, xy - mean_x * mean_y
    mean_x, mean_y = mean_x + origin, mean_y + origin
    contrast_structure = jnp.maximum((2 * cov + c2) / (var_x + var_y + c2), 0)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return jnp.mean(luminance * contrast_structure, axis=(1, 2, 3))


def crop(image: ArrayLike, border: int) -> jax.Array:
    """Without `border` pixels on each side of `b h w c`."""
    image = jnp.asarray(image)
    return image[:, border : image.shape[1] - border, border : image.shape[2] - border]


def to_unit(image: ArrayLike) -> jax.Array:
    """uint8 or [0, 1] -> fp32 in [0, 1]."""
    image = jnp.asarray(image)
    return (
        image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image.astype(jnp.float32)
    )


def channels(image: jax.Array) -> list[jax.Array]:
    """`... 3` -> red, green and blue of `...`."""
    return [image[..., i] for i in range(3)]


def weigh(weights: Sequence[float] | np.ndarray, terms: Iterable[jax.Array]) -> jax.Array:
    """The weighted sum, term by term: elementwise, where a product of matrices would round."""
    return reduce(operator.add, (float(w) * term for w, term in zip(weights, terms, strict=True)))


def _planes_8bit(image: jax.Array, luma: bool) -> jax.Array:
    """`b h w 3` -> `b c h w`, rounded to 8 bits."""
    planes = channels(to_unit(image))
    if luma:
        return jnp.round(weigh(LUMA, planes) + LUMA_OFFSET)[:, None]
    return jnp.round(jnp.stack(planes, axis=1) * 255)


def _blur(x: jax.Array) -> jax.Array:
    """The separable Gaussian window over the valid region of `... h w`, as shifted sums."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    taps = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    taps /= taps.sum()
    for axis in (-2, -1):
        x = jax.lax.optimization_barrier(x)  # or XLA computes x anew for every tap
        length = x.shape[axis] - SSIM_WINDOW + 1
        shifted = (jax.lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(len(taps)))
        x = weigh(taps, shifted)
    return x
