"""Group norm, alone or with the SiLU behind it.

On CPUs the two have one backward pass of their own. It keeps their input and nothing between, and
sums over pixels by products with ones: XLA's reduction of a product there takes several times as
long.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax


def group_norm(
    x: Array, scale: Array, bias: Array, *, groups: int, eps: float, silu: bool
) -> Array:  # b ... c, c, c
    """Every group of channels with mean 0 and variance 1 over an example, scaled and shifted.

    Statistics are fp32. `silu` puts the result through that function.
    """
    b, *space, c = x.shape
    y = lax.platform_dependent(
        x.reshape(b, -1, c), scale, bias,
        cpu=partial(_on_cpu, groups, eps, silu),
        default=partial(_portable, groups, eps, silu),
    )  # fmt: skip
    return y.reshape(b, *space, c)


def _portable(groups: int, eps: float, silu: bool, x: Array, scale: Array, bias: Array) -> Array:
    return _normalised(x, scale, bias, *_statistics(x, groups, eps), silu)


def _normalised(
    x: Array, scale: Array, bias: Array, mean: Array, inverse: Array, silu: bool
) -> Array:
    y = ((x.astype(jnp.float32) - mean) * (inverse * scale) + bias).astype(x.dtype)
    return jax.nn.silu(y) if silu else y


def _statistics(x: Array, groups: int, eps: float) -> tuple[Array, Array]:
    """The mean of every channel's group, and one over its deviation, fp32: b 1 c."""
    x = x.astype(jnp.float32)
    mean = _of_group(x.mean(1), groups)
    variance = _of_group(jnp.square(x - mean).mean(1), groups)
    return mean, lax.rsqrt(variance + eps)


def _of_group(means: Array, groups: int) -> Array:  # b c -> b 1 c
    """Every channel's mean, replaced by that of its group."""
    b, c = means.shape
    per_group = means.reshape(b, groups, -1).mean(-1)
    return jnp.repeat(per_group, c // groups, axis=-1)[:, None]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _on_cpu(groups: int, eps: float, silu: bool, x: Array, scale: Array, bias: Array) -> Array:
    return _forward(groups, eps, silu, x, scale, bias)[0]


def _forward(
    groups: int, eps: float, silu: bool, x: Array, scale: Array, bias: Array
) -> tuple[Array, tuple[Array, ...]]:
    statistics = _statistics(x, groups, eps)
    return _normalised(x, scale, bias, *statistics, silu), (x, scale, bias, *statistics)


def _backward(
    groups: int, eps: float, silu: bool, kept: tuple[Array, ...], d_out: Array
) -> tuple[Array, Array, Array]:
    x, scale, bias, mean, inverse = kept
    centred, d_y = x.astype(jnp.float32) - mean, d_out.astype(jnp.float32)
    if silu:
        y = centred * (inverse * scale) + bias
        gate = jax.nn.sigmoid(y)
        d_y = d_y * (gate * (1 + y * (1 - gate)))
    d_bias, d_scale = _pixel_sum(d_y), _pixel_sum(d_y * centred) * inverse  # b 1 c
    # The output does not change when x moves by a constant, or away from its mean.
    by_constant = _of_group((d_bias * scale)[:, 0], groups) / x.shape[1]
    from_mean = _of_group((d_scale * scale)[:, 0], groups) / x.shape[1] * inverse
    d_x = (d_y * scale - by_constant - centred * from_mean) * inverse
    d_scale, d_bias = (d.sum((0, 1)).astype(scale.dtype) for d in (d_scale, d_bias))
    return d_x.astype(x.dtype), d_scale, d_bias


_on_cpu.defvjp(_forward, _backward)


def _pixel_sum(x: Array) -> Array:  # b n c -> b 1 c
    ones = jnp.ones((x.shape[0], 1, x.shape[1]), x.dtype)
    return jnp.matmul(ones, x)
