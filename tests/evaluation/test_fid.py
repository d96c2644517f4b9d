"""FID: running statistics, the distance, and the whole against PyTorch and SciPy."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.linalg import sqrtm

from conversion.inception import read_inception
from omgsr_jax import evaluation
from omgsr_jax.evaluation import Settings, fid
from omgsr_jax.evaluation.pairs import PairedFiles
from tests.evaluation.images import photograph

torch = pytest.importorskip("torch")
from tests.models.torch_inception import random_torch  # noqa: E402


def gaussian(features):
    whole = fid.Gaussian(features.shape[1])
    whole.add(features)
    return whole


def frechet64(a, b):
    """The textbook formula, with SciPy's root of the product."""
    cross = np.trace(sqrtm(np.cov(a.T) @ np.cov(b.T))).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * cross


def correlated(seed, count, size):
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(0).standard_normal((size, size)) + 0.2 * rng.standard_normal(size)
    return rng.standard_normal((count, size)) @ mix + rng.standard_normal(size)


def test_statistics_added_in_parts_are_those_of_the_whole():
    features = 1e3 + correlated(1, 50, 12)  # far from 0, where one-pass sums would lose digits
    parts = fid.Gaussian(12)
    for part in np.split(features, [1, 8, 30]):
        parts.add(part)
    assert parts.count == 50
    np.testing.assert_allclose(parts.mean, features.mean(0), rtol=1e-13)
    np.testing.assert_allclose(parts.cov, np.cov(features.T), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [200, 10], ids=["full rank", "fewer images than features"])
def test_distance_is_that_of_the_matrix_root(count):
    a, b = correlated(1, count, 30), correlated(2, count, 30)
    ours = fid.frechet_distance(gaussian(a), gaussian(b))
    np.testing.assert_allclose(ours, frechet64(a, b), rtol=1e-6)


def test_distance_to_itself_is_0():
    a = gaussian(correlated(3, 100, 20))
    assert abs(fid.frechet_distance(a, a)) < 1e-8 * np.trace(a.cov)


def test_one_image_is_no_distribution():
    with pytest.raises(ValueError, match="at least 2 images"):
        fid.frechet_distance(gaussian(np.ones((1, 4))), gaussian(np.eye(4)))


@pytest.mark.slow  # two eigendecompositions of 2048x2048, and the network in both frameworks
def test_whole_metric_matches_torch_and_scipy(tmp_path):
    reference = random_torch()
    torch.save(reference.state_dict(), tmp_path / "inception.pth")
    model = read_inception(tmp_path / "inception.pth", allow_pickle=True)
    extract = fid.feature_extractor(model)
    sr = np.stack([photograph(seed, 64, 80) for seed in range(3)])
    hr = np.stack([photograph(seed, 64, 80) for seed in range(3, 6)])

    def torch_features(images):
        resized = [
            [
                np.asarray(Image.fromarray(np.float32(image[..., c])).resize((299, 299), 3))
                for c in range(3)
            ]
            for image in images
        ]
        x = (torch.tensor(np.array(resized)).clip(0, 255) - 128) / 128
        with torch.no_grad():
            return reference(x).mean((2, 3)).numpy()

    ours, theirs = [extract(x) for x in (sr, hr)], [torch_features(x) for x in (sr, hr)]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
    distance = fid.frechet_distance(*(gaussian(f) for f in ours))
    # Few features, for SciPy's root of 2048x2048 takes minutes: the distance lives in the span of
    # the 6 feature vectors, so an orthonormal basis of it loses nothing.
    basis = np.linalg.qr(np.concatenate(theirs).T.astype(np.float64))[0]
    expected = frechet64(*(f.astype(np.float64) @ basis for f in theirs))
    np.testing.assert_allclose(distance, expected, rtol=1e-3)


def test_without_weights_it_says_what_to_give():
    files = [[PairedFiles(name, Path("sr"), Path("hr"), None, (64, 64)) for name in "ab"]]
    ready, not_run = evaluation.prepare(["fid"], Settings(), files)
    assert not ready
    assert "--inception FILE, pt_inception-2015-12-05" in not_run["fid"]
