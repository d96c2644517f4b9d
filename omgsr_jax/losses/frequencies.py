"""An error that gathers at single frequencies, as that of a lattice does."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# Frequencies to either side that tell what error is usual. The nearest one is left out: the window
# spreads a peak onto it.
_NEIGHBOURS = (2, 3, 4)
_ROUNDING = (2 / 255) ** 2 / 12  # the power of rounding to 8 bits: below it nothing is seen


def frequencies(x_p: Array, x_h: Array) -> Array:
    """Mean squared error of spectra, where a frequency counts for as much as its error stands out.

    mean w |D|^2, with D the spectrum of x_P - x_H under a window, and w the ratio of |D|^2 to its
    mean over the frequencies around, without gradient. Errors of detail, sharpness or noise spread
    over frequencies and weigh about 1. A lattice gathers at multiples of 1 / period.

    After the focal frequency loss (Jiang et al. 2021), which weighs by |D| over its largest value
    in the image: there low frequencies weigh most.
    """
    difference = x_p.astype(jnp.float32) - x_h.astype(jnp.float32)
    centred = difference - difference.mean((1, 2), keepdims=True)
    found = jnp.fft.fft2(centred * _window(*x_p.shape[1:3]), axes=(1, 2), norm="ortho")
    power = jnp.square(found.real) + jnp.square(found.imag)
    # Edges fill the spectrum's axes: there, what is usual is found along the axis only.
    usual = jnp.maximum(_around(power, 1), _around(power, 2)) + _ROUNDING
    return (power * lax.stop_gradient(power / usual)).mean()


def _window(height: int, width: int) -> np.ndarray:
    """A Hann window of mean square 1: h w 1."""
    found = np.hanning(height + 1)[:-1, None, None] * np.hanning(width + 1)[:-1, None]
    return (found / np.sqrt(np.mean(np.square(found)))).astype(np.float32)


def _around(power: Array, axis: int) -> Array:
    shifts = [sign * distance for distance in _NEIGHBOURS for sign in (-1, 1)]
    return jnp.stack([jnp.roll(power, shift, axis) for shift in shifts]).mean(0)
