"""The texture loss: its arithmetic, and what it does and does not ask for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omgsr_jax.losses.pixel import l1
from omgsr_jax.losses.texture import (
    DIRECTIONS,
    LATTICE,
    NEIGHBOURS,
    PATCH,
    SMALLEST,
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


def _patches(image, size, stride):  # h' w' size size 3
    windows = np.lib.stride_tricks.sliding_window_view(_detail(image), (size, size), (0, 1))
    return np.moveaxis(windows, 2, -1)[::stride, ::stride]


def _sorted_reach(image, directions, stride):
    flat = directions.reshape(-1, directions.shape[-1])
    flat = flat / np.linalg.norm(flat, axis=0)
    return np.sort(_patches(image, PATCH, stride).reshape(-1, len(flat)) @ flat, axis=0)


def _steps(image):
    detail, found = _detail(image), []
    for axis in (0, 1):
        step = np.abs(detail - np.roll(detail, 1, axis))
        places = np.ndindex(LATTICE, LATTICE)
        strengths = np.array([step[y::LATTICE, x::LATTICE].mean() for y, x in places])
        found += [*strengths / (strengths.mean() + 1e-3)]
    return np.array(found)


def _strengths(image, key):
    """By the discrete Fourier sum, window by window."""
    for_frequency, for_colour = jax.random.split(key)
    frequencies = np.asarray(jax.random.uniform(for_frequency, (2, WAVES), minval=-0.5, maxval=0.5))
    colours = np.asarray(jax.random.normal(for_colour, (3, WAVES, 1)))[..., 0]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(WINDOW) + 0.5) / WINDOW)
    patches = _patches(image, WINDOW, WAVE_STRIDE)
    y, x = np.mgrid[:WINDOW, :WINDOW] - WINDOW // 2
    found = []
    for (down, across), colour in zip(frequencies.T, colours.T, strict=True):
        phase = 2 * np.pi * (down * y + across * x)
        power = 0
        for wave in (np.sin(phase), np.cos(phase)):
            wave = (hann[:, None] * hann * wave)[..., None] * colour
            power = power + np.square((patches * (wave / np.linalg.norm(wave))).sum((2, 3, 4)))
        places = np.lib.stride_tricks.sliding_window_view(power, (NEIGHBOURS, NEIGHBOURS))
        found.append(np.sqrt(places.mean((2, 3))))
    return np.stack(found)


def _mean_difference(measure, a, b, *arguments):
    pairs = zip(a, b, strict=True)
    return np.mean([np.abs(measure(p, *arguments) - measure(h, *arguments)) for p, h in pairs])


def test_texture_compares_patches_waves_and_steps():
    a, b = images(0, 2, 40, 48, 3), images(1, 2, 40, 48, 3)
    for_waves, *keys = jax.random.split(_KEY, 4)
    others = _mean_difference(_strengths, a, b, for_waves) + _mean_difference(_steps, a, b)
    found = _texture(a, b, _KEY)
    expected = []
    for stride, key in zip(STRIDES, keys, strict=True):
        directions = np.asarray(jax.random.normal(key, (PATCH, PATCH, 3, DIRECTIONS)))
        expected.append(_mean_difference(_sorted_reach, a, b, directions, stride))
        n, h, w, c = a.shape
        a, b = (np.reshape(i, (n, h // 2, 2, w // 2, 2, c)).mean((2, 4)) for i in (a, b))
    np.testing.assert_allclose(found, np.mean(expected) + others, rtol=1e-4)


def test_a_weave_of_few_waves_is_further_from_grain_than_other_grain():
    """Of equal power: half of the weave's is at each of two frequencies, where grain has little."""
    grain, other = _grain(0), _grain(1)
    y, x = np.mgrid[:64, :64]
    weave = np.sin(2 * np.pi * (y / 5 + x / 11)) + np.sin(2 * np.pi * (y / 8 - x / 4))
    weave = np.repeat(weave[None, :, :, None], 3, -1).astype(np.float32) * grain.std()
    assert _texture(weave, grain, _KEY) > 3 * _texture(other, grain, _KEY)


def test_a_weave_on_a_wall_is_not_made_up_for_by_one_elsewhere():
    """The same two patterns in the same image, but each in the other's half."""
    y, x = np.mgrid[:64, :64]
    stripes = np.repeat(np.sin(2 * np.pi * (y / 5 + x / 11))[None, :, :, None], 3, -1)
    grain = _grain(0)
    stripes = stripes.astype(np.float32) * grain.std()
    left = (x < 32)[None, ..., None]
    here, there = np.where(left, stripes, grain), np.where(left, grain, stripes)
    assert _texture(there, here, _KEY) > 1.8 * _texture(_grain(1), grain, _KEY)


def test_grain_that_is_stronger_at_some_places_of_a_lattice_is_seen():
    """Of equal power in all."""
    y, x = np.mgrid[:64, :64]
    uneven = np.where((y % 4 == 0) & (x % 4 == 0), 3.0, 1.0)[None, ..., None]
    uneven = (uneven / np.sqrt((uneven**2).mean())).astype(np.float32)
    grain, other = _grain(0), _grain(1)
    assert _texture(other * uneven, grain, _KEY) > 1.3 * _texture(other, grain, _KEY)


def test_texture_asks_for_grain_and_not_for_every_grain_in_its_place():
    original, other, smooth = _grain(0), _grain(1), _blurred(_grain(0))
    assert l1(other, original) > l1(smooth, original)
    assert _texture(other, original, _KEY) < 0.6 * _texture(smooth, original, _KEY)
    assert _texture(original, original, _KEY) < 1e-6


def test_directions_follow_the_key():
    x, y = _grain(0), _blurred(_grain(0))
    values = [float(_texture(x, y, key)) for key in (_KEY, _KEY, jax.random.key(1))]
    assert values[0] == values[1] != values[2]


def test_gradients_are_finite_on_flat_images():
    flat = jnp.zeros((1, SMALLEST, SMALLEST, 3))
    assert np.isfinite(jax.jit(jax.grad(texture))(flat, _grain(0, size=SMALLEST), _KEY)).all()


def test_total_takes_texture_with_a_key_and_says_so_without():
    x_p, x_h, *latents = (jnp.asarray(images(seed, 1, SMALLEST, SMALLEST, 3)) for seed in range(5))
    given = Restoration(x_p, x_h, *latents)

    def run(key):
        weights = LossWeights(l1=2.0, texture=3.0)
        return total(weights, Networks(), given, process=DDPM(), t_m=195, key=key)

    value, terms = run(_KEY)
    np.testing.assert_allclose(terms["texture"], _texture(x_p, x_h, _KEY), rtol=1e-5)
    np.testing.assert_allclose(value, 2 * terms["l1"] + 3 * terms["texture"], rtol=1e-6)
    with pytest.raises(ValueError, match="key"):
        run(None)
