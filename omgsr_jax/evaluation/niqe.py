"""NIQE: how far an image's local statistics are from pristine photographs'; lower is better.

Mittal, Soundararajan & Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE Signal
Processing Letters 20(3), 2013. Each 96x96 block, at full and at half resolution, gives 18 numbers
that describe the distribution of its contrast-normalised pixels; the score is the distance between
the Gaussian fitted to an image's blocks and the published one fitted to 125 photographs.

The block features are one jitted fp32 function; the 36x36 algebra that ends it is NumPy float64.
"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln as jax_gammaln
from jax.typing import ArrayLike
from scipy.io import loadmat
from scipy.special import gammaln

from ..errors import InputError
from .errors import UnavailableError
from .fidelity import channels, crop, to_unit, weigh

BLOCK = 96
FEATURES = 36  # 18 at each of two scales
LUMA = (0.299, 0.587, 0.114)  # Y of YIQ: full swing, unlike PSNR's and SSIM's

WEIGHTS_ENV = "OMGSR_NIQE_PARAMS"
HUB_REPO, HUB_FILE = "chaofengc/IQA-PyTorch-Weights", "niqe_modelparameters.mat"
# The same parameters under the names of BasicSR's .npz and of the authors' MATLAB file.
KEY_LAYOUTS = (("mu_pris_param", "cov_pris_param"), ("mu_prisparam", "cov_prisparam"))

# The asymmetric generalised Gaussian's shape is read off this table (Eq. 7 of the paper's model).
_SHAPES = np.arange(200, 10001) / 1000
_RATIOS = np.exp(2 * gammaln(2 / _SHAPES) - gammaln(1 / _SHAPES) - gammaln(3 / _SHAPES))


@dataclass(frozen=True)
class Pristine:
    """The Gaussian of pristine photographs: mean `36` and covariance `36 36`, float64."""

    mean: np.ndarray
    cov: np.ndarray


def load_pristine(path: str | Path | None = None) -> Pristine:
    """From `path`, else from $OMGSR_NIQE_PARAMS, else from the hub (or its cache).

    The parameters are those that MATLAB's release, BasicSR and pyiqa share; they come as BasicSR's
    `niqe_pris_params.npz` or as MATLAB's `niqe_modelparameters.mat`. Raises UnavailableError when
    there is nothing to read, and InputError when a file holds something else.
    """
    path = Path(path or os.environ.get(WEIGHTS_ENV) or _download())
    if not path.is_file():
        raise InputError(f"NIQE's parameters: there is no file {path}")
    try:
        arrays = loadmat(path) if path.suffix == ".mat" else dict(np.load(path))
    except Exception as error:  # each of the two readers raises several types
        raise InputError(f"NIQE's parameters: {path} cannot be read: {error}") from error
    for mean_key, cov_key in KEY_LAYOUTS:
        if mean_key in arrays and cov_key in arrays:
            mean, cov = (np.asarray(arrays[key], np.float64) for key in (mean_key, cov_key))
            mean = mean.ravel()
            if mean.shape == (FEATURES,) and cov.shape == (FEATURES, FEATURES):
                return Pristine(mean, cov)
    shapes = {key: np.shape(value) for key, value in arrays.items() if key[0] != "_"}
    raise InputError(
        f"{path} does not hold NIQE's parameters: expected a mean of {FEATURES} and a covariance "
        f"of {FEATURES}x{FEATURES} named like {' or '.join(map(str, KEY_LAYOUTS))}, found {shapes}"
    )


def _download() -> str:
    hint = f"pass niqe_params=niqe_pris_params.npz or set ${WEIGHTS_ENV}"
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise UnavailableError(f"no parameters: {hint}, or install huggingface_hub") from None
    try:
        return str(hf_hub_download(HUB_REPO, HUB_FILE))
    except Exception as error:  # offline, refused, moved: to the user all one
        raise UnavailableError(
            f"no parameters: {hint} ({HUB_REPO} on the hub: {type(error).__name__})"
        ) from error


def niqe(images: ArrayLike, pristine: Pristine, *, crop_border: int = 0) -> np.ndarray:
    """The score of each image of `b h w 3`, uint8 or [0, 1]."""
    features = np.asarray(block_features(images, crop_border=crop_border), np.float64)  # b n 36
    return np.array([_distance(blocks, pristine) for blocks in features])


@partial(jax.jit, static_argnames="crop_border")
def block_features(images: ArrayLike, *, crop_border: int = 0) -> jax.Array:
    """`b h w 3` -> `b n 36`, one row for each whole block. A flat block's features are NaN."""
    y = jnp.round(255 * weigh(LUMA, channels(to_unit(crop(images, crop_border)))))  # b h w
    rows, columns = y.shape[1] // BLOCK, y.shape[2] // BLOCK
    y = y[:, : rows * BLOCK, : columns * BLOCK]
    scales = []
    for size in (BLOCK, BLOCK // 2):
        blocks = _normalise_contrast(y).reshape(-1, rows, size, columns, size)
        blocks = blocks.transpose(0, 1, 3, 2, 4).reshape(-1, rows * columns, size, size)
        scales.append(_statistics(blocks))
        if size == BLOCK:
            y = _halve(y)
    return jnp.concatenate(scales, axis=-1)


def _normalise_contrast(y: jax.Array) -> jax.Array:
    """(y - local mean) / (local deviation + 1), under a 7x7 Gaussian window of sigma 7/6.

    Means are taken of differences to the centre pixel: exact on flat regions, and free of the
    cancellation in E[y^2] - E[y]^2 that would cost fp32 its precision.
    """
    height, width = y.shape[1:]
    padded = jnp.pad(y, ((0, 0), (3, 3), (3, 3)), mode="edge")
    offsets = np.arange(7) - 3
    taps = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * (7 / 6) ** 2))
    taps = (taps / taps.sum()).astype(np.float32)
    # Rounded to fp32, the window sums to 1 + 1.1e-8. On a flat region that sign is all there is: it
    # decides on which side of 0 the fit below counts those pixels. The compared implementations
    # have it so, and an image with saturated areas scores 1% differently without it.
    excess = float(taps.sum(dtype=np.float64) - 1)
    mean = square = jnp.zeros_like(y)
    for i, j in np.ndindex(7, 7):
        difference = padded[:, i : i + height, j : j + width] - y
        mean += float(taps[i, j]) * difference
        square += float(taps[i, j]) * difference * difference
    return -(mean + excess * y) / (jnp.sqrt(jnp.maximum(square - mean * mean, 0)) + 1)


def _halve(y: jax.Array) -> jax.Array:
    """Antialiased bicubic (a = -1/2) at half size, edges mirrored: MATLAB's `imresize(y, 0.5)`."""
    distance = np.abs(np.arange(8) - 3.5) / 2
    taps = np.where(
        distance <= 1,
        1.5 * distance**3 - 2.5 * distance**2 + 1,
        -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2,
    )
    taps /= taps.sum()
    for axis in (1, 2):
        half = y.shape[axis] // 2
        y = jnp.pad(y, [(3, 3) if i == axis else (0, 0) for i in range(3)], mode="symmetric")
        every_other = (
            jax.lax.slice_in_dim(y, i, i + 2 * half - 1, stride=2, axis=axis) for i in range(8)
        )
        y = weigh(taps, every_other)
    return y


def _statistics(blocks: jax.Array) -> jax.Array:
    """`b n h w` -> `b n 18`: of the pixels, and of their products with four neighbours (Eq. 8)."""
    shape, left, right = _fit_asymmetric_gaussian(blocks)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        neighbour = jnp.roll(blocks, shift, axis=(-2, -1))
        shape, left, right = _fit_asymmetric_gaussian(blocks * neighbour)
        mean = (right - left) * jnp.exp(jax_gammaln(2 / shape) - jax_gammaln(1 / shape))
        features += [shape, mean, left, right]
    return jnp.stack(features, axis=-1)


def _fit_asymmetric_gaussian(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Shape, left and right scale of `... h w`, by moments (Lasmar et al., ICIP 2009)."""
    axes = (-2, -1)
    square = x * x
    left = jnp.sqrt(jnp.sum(square, axes, where=x < 0) / jnp.sum(x < 0, axes))
    right = jnp.sqrt(jnp.sum(square, axes, where=x > 0) / jnp.sum(x > 0, axes))
    skew = left / right
    ratio = jnp.square(jnp.mean(jnp.abs(x), axes)) / jnp.mean(square, axes)
    ratio *= (skew**3 + 1) * (skew + 1) / jnp.square(skew**2 + 1)
    shape = _nearest_shape(ratio)
    scale = jnp.exp((jax_gammaln(1 / shape) - jax_gammaln(3 / shape)) / 2)
    return shape, left * scale, right * scale


def _nearest_shape(ratio: jax.Array) -> jax.Array:
    """The table's entry nearest to each ratio; the ratios increase, so it borders a midpoint."""
    midpoints = jnp.asarray((_RATIOS[1:] + _RATIOS[:-1]) / 2, jnp.float32)
    return jnp.asarray(_SHAPES, jnp.float32)[jnp.searchsorted(midpoints, ratio)]


def _distance(blocks: np.ndarray, pristine: Pristine) -> float:
    """Eq. 10, between the Gaussian of one image's blocks `n 36` and the pristine one."""
    whole = blocks[~np.isnan(blocks).any(axis=1)]
    if len(whole) < 2:
        return float("nan")  # nothing but flat blocks: no statistics to speak of
    difference = pristine.mean - np.nanmean(blocks, axis=0)
    precision = np.linalg.pinv((pristine.cov + np.cov(whole, rowvar=False)) / 2)
    return float(np.sqrt(difference @ precision @ difference))
