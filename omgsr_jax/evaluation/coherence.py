"""Whose detail is it? How much of a result's detail is the original's own, in its place.

In a band of frequencies, energy is the result's power over the original's. Coherence is the
correlation of their spectra there: 1 where all of the detail is the original's, 0 where none is.
Sharpening and grain raise energy alone; a good restorer raises coherence.
"""

from typing import NamedTuple

import numpy as np

from .fidelity import LUMA

# Cycles per pixel, from and to. An input of a quarter of the size holds frequencies up to 1/8.
COARSE, FINE, FINEST = (1 / 16, 1 / 8), (1 / 8, 1 / 4), (1 / 4, 1 / 2)


class Band(NamedTuple):
    energy: np.ndarray  # b
    coherence: np.ndarray  # b


def band(sr: np.ndarray, hr: np.ndarray, limits: tuple[float, float]) -> Band:
    """Energy and coherence of results in a band; uint8, or floats in [0, 1]: b h w 3."""
    result, original = (_spectrum(images) for images in (sr, hr))
    rows, columns = (np.fft.fftfreq(side) for side in hr.shape[1:3])
    distance = np.hypot(rows[:, None], columns[None])
    inside = (distance >= limits[0]) & (distance < limits[1])
    a, b = result[:, inside], original[:, inside]  # b n
    of_result, of_original = (np.square(np.abs(x)).sum(1) for x in (a, b))
    shared = (a * b.conj()).real.sum(1)
    tiny = 1e-12
    return Band(of_result / (of_original + tiny), shared / np.sqrt(of_result * of_original + tiny))


def _spectrum(images: np.ndarray) -> np.ndarray:
    """Of the luma, under a window that fades out at the borders: b h w."""
    images = np.asarray(images)
    scale = 255 if images.dtype == np.uint8 else 1
    luma = images.astype(np.float64) @ (np.array(LUMA) / 255) / scale
    luma -= luma.mean((1, 2), keepdims=True)
    return np.fft.fft2(luma * np.outer(*(np.hanning(side) for side in luma.shape[1:])))
