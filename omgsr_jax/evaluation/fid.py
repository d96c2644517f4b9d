"""FID: the Frechet distance between the Inception features of two sets of images; lower is better.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017, with the resizing of
Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", CVPR 2022
(clean-fid), which is what `pyiqa` does and hence what the compared papers report. FID depends on
the number of images: compare only with numbers from the same benchmark.

Features are summed up as they come: one running mean and covariance, whatever the number of images.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from ..models import inception

Features = Callable[[np.ndarray], np.ndarray]


class Gaussian:
    """Running mean and covariance of feature vectors, in float64 (Chan, Golub & LeVeque, 1979)."""

    def __init__(self, size: int = inception.FEATURES):
        self.count = 0
        self.mean = np.zeros(size)
        self._scatter = np.zeros((size, size))

    def add(self, features: np.ndarray) -> None:
        """Take in `n size` more vectors."""
        features = np.asarray(features, np.float64)
        mean = features.mean(axis=0)
        centred, shift = features - mean, mean - self.mean
        total = self.count + len(features)
        self._scatter += centred.T @ centred
        self._scatter += np.outer(shift, shift) * (self.count * len(features) / total)
        self.mean += shift * (len(features) / total)
        self.count = total

    @property
    def cov(self) -> np.ndarray:
        if self.count < 2:
            raise ValueError(f"FID needs at least 2 images on each side, not {self.count}")
        return self._scatter / (self.count - 1)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (AB)^1/2) for covariances A and B.

    tr (AB)^1/2 is the sum of the roots of the eigenvalues of A^1/2 B A^1/2, which is symmetric and
    positive: no complex square root of a nearly singular product, as there is with fewer images
    than features.
    """
    root_a = _symmetric_root(a.cov)
    eigenvalues = np.linalg.eigvalsh(root_a @ b.cov @ root_a)
    cross = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    distance = np.sum((a.mean - b.mean) ** 2) + np.trace(a.cov) + np.trace(b.cov) - 2 * cross
    return float(distance)


def _symmetric_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def feature_extractor(model: inception.Inception) -> Features:
    """uint8 images `b h w 3` -> features `b 2048`."""
    graph, state = nnx.split(model)
    forward = jax.jit(partial(_forward, graph))

    def features(images: np.ndarray) -> np.ndarray:
        return np.asarray(forward(state, np.stack([resize_clean(image) for image in images])))

    return features


def _forward(graph: nnx.GraphDef, state: nnx.State, images: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        return nnx.merge(graph, state)((jnp.asarray(images) - 128) / 128)


def resize_clean(image: np.ndarray, size: int = inception.INPUT_SIZE) -> np.ndarray:
    """clean-fid: antialiased bicubic on float channels, so that nothing is rounded in between."""
    channels = [
        Image.fromarray(image[..., c].astype(np.float32)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        for c in range(3)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1).clip(0, 255)
