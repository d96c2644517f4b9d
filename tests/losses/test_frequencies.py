"""The loss on frequencies: a lattice costs, and other errors of the same size cost less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omgsr_jax.losses.frequencies import frequencies
from omgsr_jax.losses.pixel import mse

_SIDE, _PERIOD = 256, 16
_loss = jax.jit(frequencies)


@pytest.fixture(scope="module")
def photo():
    """1 h w 3, in [-1, 1], with the spectrum of photographs."""
    rng = np.random.default_rng(0)
    v, u = np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)
    amplitude = 1 / (np.hypot(v, u) + 1 / _SIDE)
    found = np.fft.irfft2(amplitude * np.fft.rfft2(rng.standard_normal((_SIDE, _SIDE))))
    return np.repeat((0.3 * found / found.std())[None, ..., None], 3, -1).astype(np.float32)


@pytest.fixture(scope="module")
def restored(photo):
    """The photograph, blurred: what a restorer gives, and no lattice."""
    around = sum(np.roll(photo, by, axis) for axis in (1, 2) for by in (-1, 1))
    return 0.5 * photo + 0.125 * around


@pytest.fixture(scope="module")
def lattice():
    """Lines of two grey levels, 16 px apart."""
    on_line = np.arange(_SIDE) % _PERIOD == 0
    found = (4 / 255 * (on_line[:, None] | on_line))[None, ..., None].astype(np.float32)
    return found - found.mean()


def _share(gradient, pattern):
    """The cosine of the angle between them."""
    pattern = np.broadcast_to(pattern, gradient.shape)
    return (gradient * pattern).sum() / np.linalg.norm(gradient) / np.linalg.norm(pattern)


def test_an_image_and_itself_differ_by_nothing(photo):
    assert float(_loss(photo, photo)) == 0


@pytest.fixture(scope="module")
def noise(lattice):
    found = np.random.default_rng(1).standard_normal((1, _SIDE, _SIDE, 3)).astype(np.float32)
    return found * np.sqrt(np.square(lattice).mean() / np.square(found).mean())


def test_a_lattice_costs_more_than_another_error_of_the_same_mse(photo, restored, lattice, noise):
    blur = restored - photo
    blur = blur * np.sqrt(np.square(lattice).mean() / np.square(blur).mean())
    for other in (noise, blur):
        np.testing.assert_allclose(np.square(other).mean(), np.square(lattice).mean(), rtol=1e-3)
        assert float(_loss(photo + lattice, photo)) > 100 * float(_loss(photo + other, photo))


def test_it_costs_more_on_top_of_what_a_restorer_leaves(photo, restored, lattice, noise):
    alone, with_lattice, with_noise = (
        float(_loss(restored + more, photo)) for more in (0, lattice, noise)
    )
    assert with_lattice - alone > 2 * (with_noise - alone) > 0


def test_its_gradient_takes_the_lattice_away(photo, restored, lattice):
    image = jnp.asarray(restored + lattice)
    ours, of_mse = (np.asarray(jax.grad(loss)(image, photo)) for loss in (frequencies, mse))
    assert _share(ours, lattice) > 1.3 * _share(of_mse, lattice) > 0


def test_images_that_agree_have_a_finite_gradient():
    flat = jnp.zeros((1, 32, 48, 3))
    assert np.isfinite(jax.grad(frequencies)(flat, flat)).all()
