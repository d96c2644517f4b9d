"""Group norm equals PyTorch's, and so do the gradients of the CPU's own backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from omgsr_jax.models.ops.group_norm import group_norm
from tests.helpers import relative_error

_GROUPS, _EPS = 4, 1e-6


def _operands(shape=(3, 6, 5, 16)):
    rng = np.random.default_rng(0)
    x = 2 * rng.standard_normal(shape, np.float32) + rng.uniform(-3, 3, shape[-1])
    scale, bias = rng.uniform(-2, 2, (2, shape[-1]))
    return tuple(a.astype(np.float32) for a in (x, scale, bias))


def _ours(silu, *operands):
    return group_norm(*operands, groups=_GROUPS, eps=_EPS, silu=silu)


@pytest.mark.parametrize("silu", [False, True])
def test_output_and_gradients_agree_with_torch(silu):
    operands = _operands()
    weights = np.random.default_rng(1).standard_normal(operands[0].shape, np.float32)

    x, scale, bias = (torch.from_numpy(a).double().requires_grad_() for a in operands)
    y = torch.nn.functional.group_norm(x.movedim(-1, 1), _GROUPS, scale, bias, _EPS).movedim(1, -1)
    y = torch.nn.functional.silu(y) if silu else y
    (y * torch.from_numpy(weights)).sum().backward()

    assert relative_error(_ours(silu, *operands), y.detach().numpy()) <= 1e-6
    gradients = jax.grad(lambda *a: jnp.sum(_ours(silu, *a) * weights), argnums=(0, 1, 2))(
        *operands
    )
    for gradient, theirs in zip(gradients, (x, scale, bias), strict=True):
        assert relative_error(gradient, theirs.grad.numpy()) <= 1e-6


def test_a_constant_image_has_finite_gradients():
    _, scale, bias = _operands()
    gradient = jax.grad(lambda x: _ours(True, x, scale, bias).sum())(jnp.ones((1, 4, 4, 16)))
    assert jnp.isfinite(gradient).all()


def test_half_precision_has_fp32_statistics():
    x, scale, bias = (jnp.asarray(a, jnp.bfloat16) for a in _operands())
    exact = _ours(False, *(a.astype(jnp.float32) for a in (x, scale, bias)))
    y = _ours(False, x, scale, bias)
    assert y.dtype == jnp.bfloat16
    assert relative_error(y.astype(jnp.float32), exact) <= 2**-9
    gradients = jax.grad(lambda *a: _ours(True, *a).sum().astype(jnp.float32), (0, 1, 2))(
        x, scale, bias
    )
    assert {g.dtype for g in gradients} == {jnp.dtype(jnp.bfloat16)}
