"""PSNR and SSIM against formulas written out in NumPy float64, and against published scores."""

import numpy as np
import pytest
from PIL import Image
from scipy.signal import convolve2d

from omgsr_jax.evaluation import fidelity
from tests.evaluation.images import photograph


def noisy(image, seed=1, sigma=9.0):
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def luma64(image):
    return image / 255 @ np.array([65.481, 128.553, 24.966]) + 16


def ssim64(x, y):
    """One channel of 0..255, by direct convolution with the two-dimensional window."""
    offsets = np.arange(11) - 5
    window = np.exp(-np.add.outer(offsets**2, offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(z):
        return convolve2d(z, window, mode="valid")

    c1, c2 = 6.5025, 58.5225
    mx, my = mean(x), mean(y)
    cs = (2 * (mean(x * y) - mx * my) + c2) / (mean(x * x) - mx**2 + mean(y * y) - my**2 + c2)
    return ((2 * mx * my + c1) / (mx**2 + my**2 + c1) * np.maximum(cs, 0)).mean()


@pytest.fixture(scope="module")
def pair():
    hr = np.stack([photograph(seed, 70, 93) for seed in (1, 2)])
    return noisy(hr), hr


def test_psnr_of_luma_is_that_of_the_formula(pair):
    sr, hr = pair
    mse = np.mean((luma64(sr) / 255 - luma64(hr) / 255) ** 2, axis=(1, 2))
    np.testing.assert_allclose(fidelity.psnr(sr, hr), -10 * np.log10(mse + 1e-8), atol=1e-5)


def test_psnr_of_rgb_is_that_of_the_formula(pair):
    sr, hr = pair
    mse = np.mean((sr / 255 - hr / 255) ** 2, axis=(1, 2, 3))
    expected = -10 * np.log10(mse + 1e-8)
    np.testing.assert_allclose(fidelity.psnr(sr, hr, luma=False), expected, atol=1e-5)


def test_ssim_is_that_of_the_formula(pair):
    sr, hr = pair
    expected = [
        ssim64(*(np.round(luma64(z)) for z in images)) for images in zip(sr, hr, strict=True)
    ]
    np.testing.assert_allclose(fidelity.ssim(sr, hr), expected, atol=2e-6)
    channels = [
        np.mean([ssim64(x[..., c].astype(float), y[..., c].astype(float)) for c in range(3)])
        for x, y in zip(sr, hr, strict=True)
    ]
    np.testing.assert_allclose(fidelity.ssim(sr, hr, luma=False), channels, atol=2e-6)


def test_fp32_keeps_ssim_on_bright_flat_images():
    # E[x^2] - E[x]^2 near white loses the most: variance ~1 out of 62500.
    hr = np.full((1, 64, 64, 3), 250, np.uint8)
    sr = noisy(hr, sigma=1.0)
    expected = ssim64(np.round(luma64(sr[0])), np.round(luma64(hr[0])))
    np.testing.assert_allclose(fidelity.ssim(sr, hr)[0], expected, atol=1e-5)


def test_identical_images_reach_the_bounds(pair):
    _, hr = pair
    np.testing.assert_allclose(fidelity.psnr(hr, hr), 80)
    np.testing.assert_allclose(fidelity.ssim(hr, hr), 1, atol=1e-6)


def test_a_border_is_left_out(pair):
    sr, hr = pair
    spoiled = sr.copy()
    spoiled[:, :4] = 0
    spoiled[:, :, -4:] = 255
    inner = np.s_[:, 4:-4, 4:-4]
    for metric in (fidelity.psnr, fidelity.ssim):
        expected = metric(sr[inner], hr[inner])
        np.testing.assert_allclose(metric(spoiled, hr, crop_border=4), expected, rtol=1e-5)


def test_floats_and_bytes_score_alike(pair):
    sr, hr = pair
    for metric in (fidelity.psnr, fidelity.ssim):
        np.testing.assert_allclose(
            metric(np.float32(sr / 255), np.float32(hr / 255)), metric(sr, hr), rtol=1e-5
        )


def test_published_scores_are_reproduced(data, published):
    def stack(folder):
        return np.stack([np.asarray(Image.open(folder / f"{name}.png")) for name in published])

    sr, hr = stack(data / "metric_golden/osediff_realsr"), stack(data / "realsr100/hr")
    psnr = [row["psnr"] for row in published.values()]
    ssim = [row["ssim"] for row in published.values()]
    np.testing.assert_allclose(fidelity.psnr(sr, hr), psnr, rtol=0, atol=1e-4)
    np.testing.assert_allclose(fidelity.ssim(sr, hr), ssim, rtol=0, atol=1e-5)
