"""A product with a narrow factor has the gradients of any product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omgsr_jax.models.ops.product import narrow_product
from tests.helpers import relative_error


@pytest.mark.parametrize(("c", "o"), [(24, 4), (4, 24)], ids=["an adapter's A", "its B"])
def test_output_and_gradients_equal_those_of_a_product(c, o):
    rng = np.random.default_rng(0)
    x, factor, weights = (
        jnp.asarray(rng.standard_normal(shape, np.float32))
        for shape in ((2, 5, 7, c), (c, o), (2, 5, 7, o))
    )
    np.testing.assert_array_equal(narrow_product(x, factor), jnp.matmul(x, factor))
    ours, expected = (
        jax.grad(lambda *a, f=f: jnp.sum(f(*a) * weights), argnums=(0, 1))(x, factor)
        for f in (narrow_product, jnp.matmul)
    )
    for gradient, other in zip(ours, expected, strict=True):
        assert relative_error(gradient, other) <= 1e-6
