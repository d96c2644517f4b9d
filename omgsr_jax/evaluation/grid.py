"""A detector for the periodic grid that transformers and tiled decoders leave in an image.

A diffusion transformer draws an image in patches (FLUX: 2x2 latents of 8x8 pixels, hence 16 px);
when they disagree, a faint lattice of that period appears. Fidelity metrics do not see it. A
spectrum does: power gathers at multiples of 1/period, which a photograph has no reason to prefer.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .fidelity import LUMA, channels, to_unit, weigh

MIN_PERIODS = 8  # along each side: fewer, and the peak's neighbours are the next peak's

# Bins whose power tells what the image would have without a grid. Nearer than 3, the Hann window
# spreads the peak itself.
NEAREST, FARTHEST = 3, 8


@partial(jax.jit, static_argnames="period")
def grid_peak(images: ArrayLike, *, period: int = 16) -> jax.Array:
    """Excess power at the harmonics of `period` pixels, in dB, for each of `b h w 3`.

    Around 0 for photographs, seldom above 5. Looked for in luma, where a repeated pattern shows,
    and in the profiles of its gradients, where seams of random sign show; the larger is returned.
    """
    y = weigh(LUMA, channels(to_unit(images)))
    height, width = (size // period * period for size in y.shape[1:])
    y = y[:, :height, :width]
    return jnp.maximum(_lattice_excess(y, period), _seam_excess(y, period))


def _seam_excess(y: jax.Array, period: int) -> jax.Array:
    """The same for edges at every `period`-th row and column, of whatever sign and height."""
    # A strong edge of the picture must not outweigh a faint seam: compress above ~2 grey levels.
    down, right = (jnp.log1p(jnp.abs(y - jnp.roll(y, 1, axis)) / 2) for axis in (1, 2))
    ratios = []
    for profile in (jnp.mean(down, axis=2), jnp.mean(right, axis=1)):  # b n
        n = profile.shape[1]
        centred = profile - jnp.mean(profile, axis=1, keepdims=True)
        power = jnp.square(jnp.abs(jnp.fft.fft(centred * np.hanning(n + 1)[:-1])))
        step = n // period
        bins = step * np.arange(1, period, 2)  # odd harmonics: see `_lattice_excess`
        near = [s * d for d in range(NEAREST, min(FARTHEST, step // 2) + 1) for s in (1, -1)]
        background = jnp.mean(jnp.stack([power[:, (bins + d) % n] for d in near]), axis=0)
        ratios.append(power[:, bins] / (background + 1e-12 * jnp.max(power, axis=1, keepdims=True)))
    return 10 * jnp.log10(jnp.mean(jnp.concatenate(ratios, axis=1), axis=1) + 1e-3)


def _lattice_excess(signal: jax.Array, period: int) -> jax.Array:
    """Mean ratio of lattice bins to their neighbours in the power spectrum of `b h w`, in dB."""
    height, width = signal.shape[1:]
    window = np.hanning(height + 1)[:-1, None] * np.hanning(width + 1)[:-1]
    centred = signal - jnp.mean(signal, axis=(1, 2), keepdims=True)
    power = jnp.square(jnp.abs(jnp.fft.fft2(centred * window)))

    step_v, step_u = height // period, width // period
    v, u = (step * jnp.arange(period) for step in (step_v, step_u))

    def neighbours(axis: int, step: int) -> jax.Array:
        near = range(NEAREST, min(FARTHEST, step // 2) + 1)
        shifts = [sign * distance for distance in near for sign in (1, -1)]
        rolled = [jnp.roll(power, shift, axis)[:, v][:, :, u] for shift in shifts]
        return jnp.mean(jnp.stack(rolled), axis=0)

    # Upright and level edges fill the spectrum's axes, so a bin on an axis has its like along that
    # axis only: compare with whichever direction has more power.
    background = jnp.maximum(neighbours(1, step_v), neighbours(2, step_u))
    ratio = power[:, v][:, :, u] / (background + 1e-12 * jnp.max(power, axis=(1, 2), keepdims=True))
    # Harmonics that half the period has too are left out, or a JPEG's 8-px blocks (and those of the
    # cameras that took a benchmark) would pass for a 16-px grid.
    own = (np.add.outer(np.arange(period) % 2, np.arange(period) % 2) > 0).astype(np.float32)
    return 10 * jnp.log10(jnp.sum(ratio * own, axis=(1, 2)) / own.sum() + 1e-3)
