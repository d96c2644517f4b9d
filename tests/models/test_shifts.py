"""Latents moved by less than a patch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omgsr_jax.models.shifts import averaged, moved, places, sampled_places

_PATCH = 2


def _with_lattice(z):
    """As a network would that draws the upper left latent of every patch a little too high."""
    rows, columns = jnp.indices(z.shape[1:3])
    return z + ((rows % _PATCH == 0) & (columns % _PATCH == 0))[..., None]


@pytest.fixture
def z():
    return jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 8, 3)), jnp.float32)


def test_one_prediction_is_the_prediction_itself(z):
    given = []
    assert averaged(lambda x: given.append(x) or x, z, 1, _PATCH) is z
    assert given[0] is z


def test_what_is_moved_comes_back_to_its_place(z):
    by = jnp.array([[0, 1], [1, 1]])
    np.testing.assert_array_equal(moved(lambda x: x, z, by, _PATCH), z)


def test_each_example_meets_the_lattice_where_it_was_moved_to(z):
    seen = moved(_with_lattice, z, jnp.array([[0, 0], [1, 0]]), _PATCH) - z
    for lattice, row in zip(seen[..., 0], (0, 1), strict=True):
        expected = np.zeros((6, 8))
        expected[row::2, ::2] = 1
        np.testing.assert_allclose(lattice, expected, atol=1e-6)


def test_over_all_places_the_lattice_is_level(z):
    found = averaged(_with_lattice, z, _PATCH**2, _PATCH) - z
    np.testing.assert_allclose(found, np.full(z.shape, 0.25), atol=1e-6)


def test_two_places_lie_on_the_diagonal_and_four_are_all():
    assert places(2, 2).tolist() == [[0, 0], [1, 1]]
    assert sorted(places(9, 3).tolist()) == np.argwhere(np.ones((3, 3))).tolist()


def test_places_belong_to_the_example_and_none_is_left_out():
    keys = jax.random.split(jax.random.key(0), 64)
    found = sampled_places(keys, _PATCH)
    assert {tuple(place) for place in found.tolist()} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    np.testing.assert_array_equal(sampled_places(keys[5:7], _PATCH), found[5:7])
