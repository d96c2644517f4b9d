"""NIQE against the published method written out block by block in NumPy, and published scores."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from scipy.ndimage import correlate
from scipy.special import gamma

from omgsr_jax.errors import InputError
from omgsr_jax.evaluation import UnavailableError, niqe
from tests.evaluation.images import photograph


def fit64(x):
    left = math.sqrt(np.mean(x[x < 0] ** 2))
    right = math.sqrt(np.mean(x[x > 0] ** 2))
    skew = left / right
    ratio = np.mean(np.abs(x)) ** 2 / np.mean(x**2)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes = np.arange(0.2, 10.001, 0.001)
    table = gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))
    shape = shapes[np.argmin((table - ratio) ** 2)]
    scale = math.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def block_features64(block):
    shape, left, right = fit64(block)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = fit64(block * np.roll(block, shift, (0, 1)))
        features += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return features


def halve64(y):
    """Every output pixel from its 8 inputs, the image mirrored: MATLAB's bicubic imresize."""

    def weight(d):
        d = abs(d) / 2
        return 1.5 * d**3 - 2.5 * d**2 + 1 if d <= 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2

    weights = np.array([weight(i - 3.5) for i in range(8)])
    weights /= weights.sum()
    for _ in range(2):
        padded = np.pad(y, ((3, 4), (0, 0)), mode="symmetric")
        y = np.array([weights @ padded[2 * i : 2 * i + 8] for i in range(len(y) // 2)]).T
    return y


def features64(image):
    y = np.round(image @ np.array([0.299, 0.587, 0.114]))
    rows, columns = y.shape[0] // 96, y.shape[1] // 96
    y = y[: rows * 96, : columns * 96]
    offsets = np.arange(7) - 3
    window = np.exp(-np.add.outer(offsets**2, offsets**2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    scales = []
    for size in (96, 48):
        mean = correlate(y, window, mode="nearest")
        deviation = np.sqrt(np.abs(correlate(y**2, window, mode="nearest") - mean**2))
        normal = (y - mean) / (deviation + 1)
        scales.append(
            [
                block_features64(normal[i * size : (i + 1) * size, j * size : (j + 1) * size])
                for i in range(rows)
                for j in range(columns)
            ]
        )
        y = halve64(y)
    return np.concatenate(scales, axis=1)


def test_features_are_those_of_the_method_written_out():
    image = photograph(3, 200, 300)  # neither side a multiple of the block
    ours = np.asarray(niqe.block_features(image[None]))[0]
    expected = features64(image)
    assert ours.shape == expected.shape == (6, 36)
    # The shape is read off a table in steps of 0.001; fp32 may fall on the next entry, which moves
    # the means, differences of two nearly equal scales, most.
    np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=5e-4)


def test_score_is_the_distance_of_the_two_gaussians(pristine):
    image = photograph(4, 200, 300)
    blocks = features64(image)
    difference = pristine.mean - blocks.mean(0)
    precision = np.linalg.inv((pristine.cov + np.cov(blocks.T)) / 2)
    expected = math.sqrt(difference @ precision @ difference)
    np.testing.assert_allclose(niqe.niqe(image[None], pristine)[0], expected, rtol=1e-3)


def test_flat_blocks_are_left_out_and_flat_images_undefined(pristine):
    image = photograph(5, 200, 300)
    image[:96, :96] = 77
    assert np.isfinite(niqe.niqe(image[None], pristine)[0])
    assert np.isnan(niqe.niqe(np.full_like(image, 77)[None], pristine)[0])


def test_published_scores_are_reproduced(data, published):
    pristine = niqe.load_pristine(data / "metric_golden/niqe_pris_params.npz")
    folder = data / "metric_golden/osediff_realsr"
    images = np.stack([np.asarray(Image.open(folder / f"{name}.png")) for name in published])
    ours = niqe.niqe(images, pristine)
    expected = np.array([row["niqe"] for row in published.values()])
    error = np.abs(ours / expected - 1)
    assert np.mean(error < 0.01) >= 0.95, error
    assert abs(ours.mean() / expected.mean() - 1) < 0.002


def test_both_published_layouts_are_read(pristine, niqe_file, tmp_path, monkeypatch):
    savemat(
        tmp_path / "niqe_modelparameters.mat",
        {"mu_prisparam": pristine.mean[None], "cov_prisparam": pristine.cov},
    )
    monkeypatch.setenv(niqe.WEIGHTS_ENV, str(niqe_file))
    for loaded in (niqe.load_pristine(), niqe.load_pristine(tmp_path / niqe.HUB_FILE)):
        np.testing.assert_array_equal(loaded.mean, pristine.mean)
        np.testing.assert_array_equal(loaded.cov, pristine.cov)


def test_another_file_is_refused_with_what_it_holds(tmp_path):
    np.savez(tmp_path / "other.npz", mu_pris_param=np.zeros(7), cov_pris_param=np.eye(7))
    with pytest.raises(InputError, match=r"mean of 36 .* found .*\(7, 7\)"):
        niqe.load_pristine(tmp_path / "other.npz")
    with pytest.raises(InputError, match=r"no file .*absent\.npz"):
        niqe.load_pristine(tmp_path / "absent.npz")
    (tmp_path / "page.npz").write_text("<html>not found</html>")
    with pytest.raises(InputError, match=r"page\.npz cannot be read"):
        niqe.load_pristine(tmp_path / "page.npz")


def test_without_file_and_network_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv(niqe.WEIGHTS_ENV, raising=False)
    monkeypatch.setattr(niqe, "HUB_FILE", "no_such_file.mat")  # in no cache
    with pytest.raises(UnavailableError, match=niqe.WEIGHTS_ENV):
        niqe.load_pristine()
