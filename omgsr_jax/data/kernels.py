"""The blur kernels of the Real-ESRGAN degradation: a few numbers each, rendered on demand.

A kernel is any of three radial profiles over the squared Mahalanobis radius q (Gaussian exp(-q/2),
generalised Gaussian exp(-q^beta/2), plateau 1/(1+q^beta)), isotropic or not, or the circular
low-pass ("sinc") filter that produces ringing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SHAPES = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
KINDS = (*SHAPES, "sinc")


@dataclass(frozen=True)
class Kernel:
    """One kernel. `sigma`, `theta` and `beta` describe the six shapes, `cutoff` the sinc filter.

    `theta` turns the first axis of `sigma` away from x; `cutoff` is in radians per pixel, pi passes
    everything.
    """

    kind: str
    size: int
    sigma: tuple[float, float] = (1.0, 1.0)
    theta: float = 0.0
    beta: float = 1.0
    cutoff: float = math.pi

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kernel kind {self.kind!r}; the kinds are {', '.join(KINDS)}")
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"a kernel's size must be odd and positive, not {self.size}")


def render(kernel: Kernel, pad_to: int | None = None) -> np.ndarray:
    """The kernel's taps, float64, summing to one, zero-padded to `pad_to` squared if given."""
    if kernel.kind == "sinc":
        taps = _circular_low_pass(kernel.cutoff, kernel.size)
    else:
        taps = _profile(kernel)
    taps = taps / taps.sum()
    return taps if pad_to is None else _padded(taps, pad_to)


def pulse(size: int) -> np.ndarray:
    """The kernel that changes nothing."""
    return _padded(np.ones((1, 1)), size)


def gaussian_1d(kernel: Kernel) -> np.ndarray:
    """The one-dimensional factor of an isotropic Gaussian kernel: outer(g, g) is its rendering."""
    x = _offsets(kernel.size)
    taps = np.exp(-0.5 * (x / kernel.sigma[0]) ** 2)
    return taps / taps.sum()


def trimmed(taps: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """Without the outer rings that together weigh less than `tolerance`: cheaper, and as good."""
    weight = np.abs(taps)
    margin, middle = 0, taps.shape[0] // 2
    while margin < middle:
        inner = slice(margin + 1, taps.shape[0] - margin - 1)
        if weight.sum() - weight[inner, inner].sum() > tolerance:
            break
        margin += 1
    return taps[margin : taps.shape[0] - margin, margin : taps.shape[1] - margin]


def _offsets(size: int) -> np.ndarray:
    return np.arange(size) - size // 2.0


def _profile(kernel: Kernel) -> np.ndarray:
    shape, _, symmetry = kernel.kind.rpartition("_")
    sigma_u, sigma_v = kernel.sigma if symmetry == "aniso" else (kernel.sigma[0],) * 2
    theta = kernel.theta if symmetry == "aniso" else 0.0
    x, y = np.meshgrid(_offsets(kernel.size), _offsets(kernel.size))
    u = math.cos(theta) * x + math.sin(theta) * y
    v = math.cos(theta) * y - math.sin(theta) * x
    q = (u / sigma_u) ** 2 + (v / sigma_v) ** 2
    if shape == "generalized":
        return np.exp(-0.5 * q**kernel.beta)
    if shape == "plateau":
        return 1.0 / (1.0 + q**kernel.beta)
    return np.exp(-0.5 * q)


def _circular_low_pass(cutoff: float, size: int) -> np.ndarray:
    """The inverse Fourier transform of a disc: cutoff J1(cutoff r) / (2 pi r)."""
    squared = _offsets(size)[:, None] ** 2 + _offsets(size)[None, :] ** 2
    unique, where = np.unique(squared, return_inverse=True)
    r = np.sqrt(unique[1:])
    values = np.concatenate(
        ([cutoff**2 / (4 * np.pi)], cutoff * _bessel_j1(cutoff * r) / (2 * np.pi * r))
    )
    return values[where].reshape(size, size)


def _bessel_j1(x: np.ndarray) -> np.ndarray:
    """Bessel's integral by the trapezoid rule, exact to rounding for arguments below about 200.

    The integrand is smooth and periodic, so the rule converges faster than any power.
    """
    tau = (np.arange(256) + 0.5) * (np.pi / 256)
    return np.cos(tau - x[:, None] * np.sin(tau)).mean(axis=1)


def _padded(taps: np.ndarray, size: int) -> np.ndarray:
    margin = (size - taps.shape[0]) // 2
    if margin < 0 or (size - taps.shape[0]) % 2:
        raise ValueError(f"cannot centre a {taps.shape[0]}-tap kernel in {size} taps")
    return np.pad(taps, margin)
