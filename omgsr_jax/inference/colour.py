"""Giving a restored image the colours of its source: both are h w 3 float32 in [0, 1].

| method | what is taken from the source |
|---|---|
| adain | mean and deviation of each of R, G, B |
| wavelet | everything coarser than 32 px |
| lab | mean and deviation of each of L*, a*, b* (Reinhard et al., 2001) |
| none | nothing |

`adain` and `wavelet` are the published ones.
"""

from collections.abc import Callable

import numpy as np

from .options import require_color

_EPSILON = 1e-5
_WAVELET_LEVELS = 5


def align(image: np.ndarray, source: np.ndarray, method: str) -> np.ndarray:
    """`image` with the colours of `source`, of the same size; within [0, 1]."""
    require_color(method)
    return np.clip(METHODS[method](image, source), 0, 1).astype(np.float32)


def adain(image: np.ndarray, source: np.ndarray) -> np.ndarray:
    mean, deviation = _statistics(image)
    source_mean, source_deviation = _statistics(source)
    return (image - mean) / deviation * source_deviation + source_mean


def wavelet(image: np.ndarray, source: np.ndarray) -> np.ndarray:
    return image - _coarse(image) + _coarse(source)


def lab(image: np.ndarray, source: np.ndarray) -> np.ndarray:
    return _from_lab(adain(_to_lab(image), _to_lab(source)))


def none(image: np.ndarray, source: np.ndarray) -> np.ndarray:
    return image


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "adain": adain,
    "wavelet": wavelet,
    "lab": lab,
    "none": none,
}


def _statistics(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation per channel; the variance is the sample's, as PyTorch's is."""
    pixels = image.reshape(-1, 3)
    variance = pixels.var(0, dtype=np.float64, ddof=1 if len(pixels) > 1 else 0)
    return pixels.mean(0, dtype=np.float64), np.sqrt(variance + _EPSILON)


def _coarse(image: np.ndarray) -> np.ndarray:
    """Blurred by (1 2 1)/4 along both axes, at distances 1, 2, 4, 8 and 16."""
    for level in range(_WAVELET_LEVELS):
        for axis in (0, 1):
            image = _blur(image, 2**level, axis)
    return image


def _blur(image: np.ndarray, distance: int, axis: int) -> np.ndarray:
    length = image.shape[axis]
    positions = np.arange(length)
    before = image.take(np.maximum(positions - distance, 0), axis)
    after = image.take(np.minimum(positions + distance, length - 1), axis)
    return 0.25 * before + 0.5 * image + 0.25 * after


# sRGB's primaries and white (D65), as in IEC 61966-2-1.
_RGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _RGB_TO_XYZ.sum(1)
_LAB_BREAK = 6 / 29


def _to_lab(image: np.ndarray) -> np.ndarray:
    linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    xyz = linear @ (_RGB_TO_XYZ.T / _WHITE)
    f = np.where(xyz > _LAB_BREAK**3, np.cbrt(xyz), xyz / (3 * _LAB_BREAK**2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([1.16 * y - 0.16, 5 * (x - y), 2 * (y - z)], axis=-1)  # L*/100, a*/100, b*/100


def _from_lab(values: np.ndarray) -> np.ndarray:
    lightness, a, b = np.moveaxis(values, -1, 0)
    y = (lightness + 0.16) / 1.16
    f = np.stack([y + a / 5, y, y - b / 2], axis=-1)
    xyz = np.where(f > _LAB_BREAK, f**3, 3 * _LAB_BREAK**2 * (f - 4 / 29))
    linear = np.clip(xyz @ np.linalg.inv(_RGB_TO_XYZ.T / _WHITE), 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
