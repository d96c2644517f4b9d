"""The texture loss: its arithmetic, and what it does and does not ask for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omgsr_jax.losses.pixel import l1
from omgsr_jax.losses.texture import (
    DIRECTIONS,
    PATCH,
    STRIDES,
    WAVE_STRIDE,
    WAVES,
    WINDOW,
    texture,
)
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


def _detail(image):  # h w 3
    return np.asarray(Detail().features(jnp.asarray(image[None]))[0][0])


def _reach(image, directions, stride):
    """Of all patches, in order, along directions of `size size 3 directions`."""
    size = directions.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(_detail(image), (size, size), (0, 1))
    windows = np.moveaxis(windows, 2, -1)[::stride, ::stride]  # h' w' i j 3
    flat = directions.reshape(-1, directions.shape[-1])
    flat = flat / np.linalg.norm(flat, axis=0)
    return np.sort(windows.reshape(-1, len(flat)) @ flat, axis=0)


def _distance(a, b, directions, stride):
    pairs = zip(a, b, strict=True)
    reaches = [[_reach(image, directions, stride) for image in pair] for pair in pairs]
    return np.mean([np.abs(p - h).mean() for p, h in reaches])


def _drawn_waves(key):
    frequency, phase, colour = jax.random.split(key, 3)
    down, across = np.asarray(jax.random.uniform(frequency, (2, WAVES), minval=-0.5, maxval=0.5))
    phase = np.asarray(jax.random.uniform(phase, (WAVES,), maxval=2 * np.pi))
    colour = np.asarray(jax.random.normal(colour, (3, WAVES)))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(WINDOW) + 0.5) / WINDOW)
    waves = np.empty((WINDOW, WINDOW, 3, WAVES))
    for y, x in np.ndindex(WINDOW, WINDOW):
        wave = np.cos(2 * np.pi * (down * y + across * x) + phase)
        waves[y, x] = hann[y] * hann[x] * wave * colour
    return waves


def test_texture_compares_sorted_projections_of_patches():
    a, b = images(0, 2, 32, 40, 3), images(1, 2, 32, 40, 3)
    for_waves, *keys = jax.random.split(_KEY, 4)
    along_waves = _distance(a, b, _drawn_waves(for_waves), WAVE_STRIDE)
    found = _texture(a, b, _KEY)
    expected = []
    for stride, key in zip(STRIDES, keys, strict=True):
        directions = np.asarray(jax.random.normal(key, (PATCH, PATCH, 3, DIRECTIONS)))
        expected.append(_distance(a, b, directions, stride))
        n, h, w, c = a.shape
        a, b = (np.reshape(i, (n, h // 2, 2, w // 2, 2, c)).mean((2, 4)) for i in (a, b))
    np.testing.assert_allclose(found, np.mean(expected) + along_waves, rtol=1e-4)


def test_a_weave_of_few_waves_is_further_from_grain_than_other_grain():
    """Of equal power: half of the weave's is at each of two frequencies, where grain has little."""
    grain, other = _grain(0), _grain(1)
    y, x = np.mgrid[:64, :64]
    weave = np.sin(2 * np.pi * (y / 5 + x / 11)) + np.sin(2 * np.pi * (y / 8 - x / 4))
    weave = np.repeat(weave[None, :, :, None], 3, -1).astype(np.float32) * grain.std()
    assert _texture(weave, grain, _KEY) > 3 * _texture(other, grain, _KEY)


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
