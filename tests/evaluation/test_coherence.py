"""Energy and coherence: what raises them, and what does not."""

import numpy as np
import pytest

from omgsr_jax.evaluation.coherence import COARSE, FINE, FINEST, band

BANDS = (COARSE, FINE, FINEST)


@pytest.fixture
def photo():
    return np.random.default_rng(0).uniform(0.2, 0.8, (2, 64, 80, 3))


@pytest.mark.parametrize("limits", BANDS)
def test_the_original_has_all_of_its_own_detail(photo, limits):
    found = band(photo, photo, limits)
    np.testing.assert_allclose(found, 1)


def test_contrast_raises_energy_alone(photo):
    found = band(0.5 + 1.5 * (photo - 0.5), photo, FINE)
    np.testing.assert_allclose(found.energy, 1.5**2)
    np.testing.assert_allclose(found.coherence, 1)


def test_other_detail_is_not_coherent_and_lowers_what_is(photo):
    other = np.random.default_rng(1).uniform(0.2, 0.8, photo.shape)
    assert np.abs(band(other, photo, FINE).coherence).max() < 0.15
    assert (band((photo + other) / 2, photo, FINE).coherence < 0.85).all()


def test_bytes_and_floats_agree(photo):
    whole = np.rint(photo * 255).astype(np.uint8)
    np.testing.assert_allclose(band(whole, whole, FINE), band(whole / 255, whole / 255, FINE))
