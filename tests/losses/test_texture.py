"""The texture loss: its arithmetic, and what it does and does not ask for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omgsr_jax.losses.pixel import l1
from omgsr_jax.losses.texture import DIRECTIONS, PATCH, STRIDES, texture
from omgsr_jax.losses.total import LossWeights, Networks, Restoration, total
from omgsr_jax.models.features import Detail
from omgsr_jax.process import DDPM
from tests.helpers import images

_KEY = jax.random.key(0)
_texture = jax.jit(texture)


def _grain(seed, strength=0.1, size=64):
    rng = np.random.default_rng(seed)
    return (strength * rng.standard_normal((1, size, size, 3))).astype(np.float32)


def _blurred(x):
    for axis in (1, 2):
        x = (np.roll(x, 1, axis) + 2 * x + np.roll(x, -1, axis)) / 4
    return x


def test_texture_compares_sorted_projections_of_patches():
    x, y = images(0, 2, 32, 40, 3), images(1, 2, 32, 40, 3)

    def projected(image, directions, stride):  # h w 3 -> patches directions
        detail = np.asarray(Detail().features(jnp.asarray(image[None]))[0][0])
        windows = np.lib.stride_tricks.sliding_window_view(detail, (PATCH, PATCH), (0, 1))
        windows = np.moveaxis(windows, 2, -1)[::stride, ::stride]  # h' w' i j 3
        return windows.reshape(-1, directions.shape[0]) @ directions

    expected, a, b = [], x, y
    for stride, key in zip(STRIDES, jax.random.split(_KEY, 3), strict=True):
        drawn = np.asarray(jax.random.normal(key, (PATCH, PATCH, 3, DIRECTIONS)))
        drawn = drawn.reshape(-1, DIRECTIONS)
        drawn = drawn / np.linalg.norm(drawn, axis=0)
        pairs = [
            [np.sort(projected(image, drawn, stride), axis=0) for image in pair]
            for pair in zip(a, b, strict=True)
        ]
        expected.append(np.mean([np.abs(p - h).mean() for p, h in pairs]))
        n, h, w, c = a.shape
        a, b = (np.reshape(i, (n, h // 2, 2, w // 2, 2, c)).mean((2, 4)) for i in (a, b))
    np.testing.assert_allclose(_texture(x, y, _KEY), np.mean(expected), rtol=1e-4)


def test_texture_asks_for_grain_and_not_for_every_grain_in_its_place():
    original, other, smooth = _grain(0), _grain(1), _blurred(_grain(0))
    assert l1(other, original) > l1(smooth, original)
    assert _texture(other, original, _KEY) < 0.6 * _texture(smooth, original, _KEY)
    assert _texture(original, original, _KEY) == 0


def test_directions_follow_the_key():
    x, y = _grain(0), _blurred(_grain(0))
    values = [float(_texture(x, y, key)) for key in (_KEY, _KEY, jax.random.key(1))]
    assert values[0] == values[1] != values[2]


def test_gradients_are_finite_on_flat_images():
    flat = jnp.zeros((1, 32, 32, 3))
    assert np.isfinite(jax.jit(jax.grad(texture))(flat, _grain(0, size=32), _KEY)).all()


def test_total_takes_texture_with_a_key_and_says_so_without():
    x_p, x_h, *latents = (jnp.asarray(images(seed, 1, 32, 32, 3)) for seed in range(5))
    given = Restoration(x_p, x_h, *latents)

    def run(key):
        weights = LossWeights(l1=2.0, texture=3.0)
        return total(weights, Networks(), given, process=DDPM(), t_m=195, key=key)

    value, terms = run(_KEY)
    np.testing.assert_allclose(terms["texture"], _texture(x_p, x_h, _KEY), rtol=1e-5)
    np.testing.assert_allclose(value, 2 * terms["l1"] + 3 * terms["texture"], rtol=1e-6)
    with pytest.raises(ValueError, match="key"):
        run(None)
