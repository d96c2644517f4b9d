"""Group norm equals PyTorch's on every platform, and so do the gradients of its backward pass."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from omgsr_jax.models.ops.group_norm import Norm, by_strips, flat, group_norm
from tests.helpers import relative_error

_GROUPS, _EPS = 4, 1e-6
_WAYS = {  # how each platform computes, here on a CPU
    "cpu": (flat, True),
    "cuda": (flat, False),
    "tpu": (by_strips, False),
}


def _operands(shape=(3, 16, 5, 16), mean=3):
    rng = np.random.default_rng(0)
    x = 2 * rng.standard_normal(shape, np.float32) + rng.uniform(-mean, mean, shape[-1])
    scale, bias = rng.uniform(-2, 2, (2, shape[-1]))
    return tuple(a.astype(np.float32) for a in (x, scale, bias))


def _ours(silu, *operands):
    return group_norm(*operands, groups=_GROUPS, eps=_EPS, silu=silu)


def _way(platform, silu):
    compute, on_cpu = _WAYS[platform]
    return jax.jit(partial(compute, Norm(_GROUPS, _EPS, silu, on_cpu)))


def _torch(silu, *operands):
    x, scale, bias = operands
    y = torch.nn.functional.group_norm(x.movedim(-1, 1), _GROUPS, scale, bias, _EPS).movedim(1, -1)
    return torch.nn.functional.silu(y) if silu else y


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("platform", _WAYS)
def test_output_and_gradients_agree_with_torch(platform, silu):
    operands, ours = _operands(), _way(platform, silu)
    weights = np.random.default_rng(1).standard_normal(operands[0].shape, np.float32)

    theirs = [torch.from_numpy(a).double().requires_grad_() for a in operands]
    y = _torch(silu, *theirs)
    (y * torch.from_numpy(weights)).sum().backward()

    assert relative_error(ours(*operands), y.detach().numpy()) <= 1e-6
    gradients = jax.grad(lambda *a: jnp.sum(ours(*a) * weights), argnums=(0, 1, 2))(*operands)
    for gradient, other in zip(gradients, theirs, strict=True):
        assert relative_error(gradient, other.grad.numpy()) <= 1e-6


@pytest.mark.parametrize("platform", _WAYS)
def test_a_mean_of_30_deviations_costs_no_digits(platform):
    """Squares of such numbers, less the square of their mean, would: 6e-5 in PyTorch's fp32."""
    rng = np.random.default_rng(0)
    x, scale, bias = _operands((3, 16, 8, 16))
    x = rng.standard_normal(x.shape, np.float32) + 30 * np.repeat(rng.choice([-1, 1], 4), 4)
    operands = (x.astype(np.float32), scale, bias)
    exact = _torch(False, *(torch.from_numpy(a).double() for a in operands)).numpy()
    assert relative_error(_way(platform, False)(*operands), exact) <= 1e-6


def test_maps_are_cut_for_tpus_only():
    lowered = _lowered(partial(_ours, True))
    assert {p for p, text in lowered.items() if "tensor<3x8x2x5x16xf32>" in text} == {"tpu"}


def test_pixels_are_summed_by_products_on_cpus_only():
    lowered = _lowered(jax.grad(lambda *a: _ours(True, *a).sum()))
    assert {p for p, text in lowered.items() if "dot_general" in text} == {"cpu"}


def _lowered(function):
    traced = jax.jit(function).trace(*_operands())
    return {p: traced.lower(lowering_platforms=(p,)).as_text() for p in _WAYS}


def test_a_constant_image_has_finite_gradients():
    _, scale, bias = _operands()
    of = jax.jit(jax.grad(lambda x: _ours(True, x, scale, bias).sum()))
    assert jnp.isfinite(of(jnp.ones((1, 4, 4, 16)))).all()


def test_half_precision_has_fp32_statistics():
    x, scale, bias = (jnp.asarray(a, jnp.bfloat16) for a in _operands())
    exact = _ours(False, *(a.astype(jnp.float32) for a in (x, scale, bias)))
    y = _ours(False, x, scale, bias)
    assert y.dtype == jnp.bfloat16
    assert relative_error(y.astype(jnp.float32), exact) <= 2**-9
    of = jax.jit(jax.grad(lambda *a: _ours(True, *a).sum().astype(jnp.float32), (0, 1, 2)))
    assert {g.dtype for g in of(x, scale, bias)} == {jnp.dtype(jnp.bfloat16)}
