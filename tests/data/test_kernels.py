import math

import numpy as np
import pytest
from scipy import special

from omgsr_jax.data.kernels import KINDS, Kernel, gaussian_1d, pulse, render, trimmed

SOME_OF_EACH = [
    Kernel(kind, size, sigma=(sigma, 1.7), theta=0.6, beta=beta, cutoff=cutoff)
    for kind in KINDS
    for size, sigma, beta, cutoff in [(7, 0.2, 0.5, 1.1), (13, 1.2, 1.6, 2.0), (21, 3.0, 4.0, 3.1)]
]


@pytest.mark.parametrize("kernel", SOME_OF_EACH, ids=lambda k: f"{k.kind}-{k.size}")
def test_a_kernel_sums_to_one_and_is_symmetric(kernel):
    taps = render(kernel)
    assert taps.shape == (kernel.size, kernel.size)
    assert taps.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(taps, taps[::-1, ::-1], atol=1e-12)
    if not kernel.kind.endswith("aniso"):
        np.testing.assert_allclose(taps, np.rot90(taps), atol=1e-12)


def test_an_anisotropic_gaussian_has_the_covariance_it_was_given():
    sigma, theta = (3.0, 1.0), 0.6
    taps = render(Kernel("aniso", 41, sigma, theta))
    offsets = np.arange(41) - 20
    x, y = np.meshgrid(offsets, offsets)
    moments = [(taps * a * b).sum() for a, b in ((x, x), (x, y), (y, y))]
    rotation = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    expected = rotation @ np.diag(np.square(sigma)) @ rotation.T
    # The sampled Gaussian misses only what lies beyond 20 pixels.
    np.testing.assert_allclose(moments, [expected[0, 0], expected[0, 1], expected[1, 1]], atol=1e-6)


def test_generalised_shapes_reduce_to_the_gaussian_and_flatten_with_beta():
    gaussian = render(Kernel("iso", 21, (2.0, 2.0)))
    same = render(Kernel("generalized_iso", 21, (2.0, 2.0), beta=1.0))
    np.testing.assert_allclose(same, gaussian, atol=1e-15)
    flat = render(Kernel("generalized_iso", 21, (2.0, 2.0), beta=4.0))
    assert flat[10, 11] / flat[10, 10] > gaussian[10, 11] / gaussian[10, 10]
    plateau = render(Kernel("plateau_iso", 21, (2.0, 2.0), beta=1.5))
    assert plateau[10, 12] / plateau[10, 10] == pytest.approx(1 / 2)  # q = 1 there


@pytest.mark.parametrize("cutoff", [math.pi / 3, 1.6, 2.4])
def test_the_sinc_filter_passes_below_its_cutoff_and_stops_above(cutoff):
    taps = render(Kernel("sinc", 41, cutoff=cutoff))
    response = np.abs(np.fft.fft2(taps, (256, 256)))
    frequency = 2 * np.pi * np.abs(np.fft.fftfreq(256))
    radius = np.hypot(frequency[:, None], frequency[None, :])
    # Cutting the filter off at 41 taps leaves Gibbs ripples of up to 0.12 near the edge.
    assert np.abs(response[radius < cutoff - 0.3] - 1).max() < 0.15
    assert response[radius > cutoff + 0.3].max() < 0.15
    assert response[np.abs(radius - cutoff) < 0.02].mean() == pytest.approx(0.5, abs=0.05)


def test_the_sinc_filter_is_the_bessel_formula():
    cutoff, offsets = 2.2, np.arange(41) - 20
    r = np.hypot(offsets[:, None], offsets[None, :])
    r[20, 20] = 1e-9  # the limit at the centre
    expected = cutoff * special.j1(cutoff * r) / (2 * np.pi * r)
    np.testing.assert_allclose(
        render(Kernel("sinc", 41, cutoff=cutoff)), expected / expected.sum(), atol=1e-12
    )


def test_the_isotropic_gaussian_is_the_outer_product_of_its_factor():
    kernel = Kernel("iso", 15, (1.3, 1.3))
    factor = gaussian_1d(kernel)
    np.testing.assert_allclose(np.outer(factor, factor), render(kernel), atol=1e-15)


def test_trimming_drops_only_negligible_taps():
    narrow = render(Kernel("aniso", 21, (0.5, 0.6), 0.3))
    small = trimmed(narrow)
    assert small.shape[0] < 21
    assert small.sum() == pytest.approx(1, abs=1e-6)
    wide = render(Kernel("sinc", 21, cutoff=1.5))
    assert trimmed(wide).shape == wide.shape


def test_padding_centres_the_kernel():
    kernel = Kernel("iso", 7, (1.0, 1.0))
    padded = render(kernel, pad_to=21)
    np.testing.assert_array_equal(padded[7:14, 7:14], render(kernel))
    assert padded.sum() == pytest.approx(1)
    assert pulse(21)[10, 10] == pulse(21).sum() == 1
    with pytest.raises(ValueError, match="7-tap kernel in 5"):
        render(kernel, pad_to=5)


def test_impossible_kernels_are_refused():
    with pytest.raises(ValueError, match="unknown kernel kind 'box'"):
        Kernel("box", 7)
    with pytest.raises(ValueError, match="odd and positive, not 8"):
        Kernel("iso", 8)
