"""Winograd's convolution equals the direct one, and is what CPUs run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from omgsr_jax.models import winograd
from omgsr_jax.models.layers import Conv
from tests.helpers import relative_error


def _operands(b=2, h=64, w=34, c=160, o=176):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((b, h, w, c), np.float32)
    return x, rng.standard_normal((3, 3, c, o), np.float32) / 38


def _exact(x, kernel):
    """Nine shifted products in float64."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    _, h, w, _ = x.shape
    return sum(padded[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))


def test_equals_the_direct_convolution():
    x, kernel = _operands()
    assert winograd.pays(x, kernel)
    assert relative_error(winograd.convolve(x, kernel), _exact(x, kernel)) <= 1e-6


def test_gradients_equal_those_of_the_direct_convolution():
    x, kernel = _operands()
    weights = np.random.default_rng(1).standard_normal((2, 64, 34, 176), np.float32)

    def direct(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    ours, expected = (
        jax.grad(lambda *a, f=f: jnp.sum(f(*a) * weights), argnums=(0, 1))(x, kernel)
        for f in (winograd.convolve, direct)
    )
    for gradient, other in zip(ours, expected, strict=True):
        assert relative_error(gradient, other) <= 1e-5


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"h": 72}, "rows that strips do not divide"),
        ({"w": 33}, "an odd width"),
        ({"c": 128}, "few channels"),
        ({"b": 1}, "few pixels"),
    ],
)
def test_passes_over_what_it_is_not_for(change, because):
    assert not winograd.pays(*_operands(**change)), because
    x, kernel = _operands()
    assert not winograd.pays(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))


def test_layers_use_it_on_cpus_only():
    x, _ = _operands()
    graph, state = nnx.split(Conv(160, 176, 3, padding=1, rngs=nnx.Rngs(0)))
    traced = jax.jit(lambda state, x: nnx.merge(graph, state)(x)).trace(state, x)
    lowered = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda")
    }
    assert "stablehlo.convolution" not in lowered["cpu"]
    assert "stablehlo.convolution" in lowered["cuda"]
