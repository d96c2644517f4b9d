"""What training adds to the losses: a key for every image, and a distance in any features."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

from omgsr_jax.losses.augment import sample
from omgsr_jax.losses.lpips import feature_distance
from omgsr_jax.models.sampling import sampled_normal
from tests.helpers import images


class _TwoMaps:
    def features(self, x):
        return [jnp.tanh(2 * x), x[:, ::2, ::2]]


def test_an_images_augmentation_depends_on_its_own_key():
    keys = jax.random.split(jax.random.key(0), 3)
    drawn = jax.jit(sample, static_argnums=(1, 2, 3))
    together, alone = drawn(keys, 6, 20, 24), drawn(keys[1], 2, 20, 24)  # two windows of each image
    for ours, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(ours[2:4], expected)
    assert len(set(np.asarray(together.brightness).tolist())) == 6


def test_an_images_noise_depends_on_its_own_key():
    keys = jax.random.split(jax.random.key(0), 3)
    together = sampled_normal(keys, (3, 4, 2))
    np.testing.assert_array_equal(together[1], sampled_normal(keys[1], (4, 2)))


def test_feature_distance_is_torchs_and_has_a_gradient_where_there_are_no_features():
    x, y = images(0, 2, 8, 8, 3), images(1, 2, 8, 8, 3)
    levels = []
    for a, b in zip(_TwoMaps().features(x), _TwoMaps().features(y), strict=True):
        a, b = (
            torch.nn.functional.normalize(torch.from_numpy(np.array(m)), dim=-1) for m in (a, b)
        )
        levels.append((a - b).square().sum(-1).mean())
    expected = torch.stack(levels).mean().item()
    np.testing.assert_allclose(feature_distance(x, y, _TwoMaps()), expected, rtol=1e-5)
    flat = jax.grad(lambda x: feature_distance(x, y, _TwoMaps()))(jnp.zeros_like(x))
    assert np.isfinite(flat).all()
