"""Group norm, alone or with the SiLU behind it, with one backward pass for every platform.

The backward pass keeps the input and nothing between. What differs is how pixels are summed:

| platform | way |
|---|---|
| CPU | mean, then variance; sums of products by products with ones, several times as fast there |
| TPU | both in one pass over the map; by strips of rows, as its convolutions (`tpu_strips.py`) |
| any | both in one pass over the map |
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from . import tpu_strips

_SAMPLES = 8


@dataclass(frozen=True)
class Norm:
    """What is computed, and whether by products with ones and in two passes, as on CPUs."""

    groups: int
    eps: float
    silu: bool
    on_cpu: bool = False


@jax.named_scope("group_norm")
def group_norm(
    x: Array, scale: Array, bias: Array, *, groups: int, eps: float, silu: bool
) -> Array:  # b ... c, c, c
    """Every group of channels with mean 0 and variance 1 over an example, scaled and shifted.

    Statistics are fp32. `silu` puts the result through that function.
    """
    norm = Norm(groups, eps, silu)
    return lax.platform_dependent(
        x, scale, bias,
        cpu=partial(flat, replace(norm, on_cpu=True)),
        tpu=partial(by_strips if tpu_strips.fit(x) else flat, norm),
        default=partial(flat, norm),
    )  # fmt: skip


def flat(norm: Norm, x: Array, scale: Array, bias: Array) -> Array:
    """All pixels of an example in one row."""
    b, *_, c = x.shape
    return _normalised(norm, x.reshape(b, -1, c), scale, bias).reshape(x.shape)


def by_strips(norm: Norm, x: Array, scale: Array, bias: Array) -> Array:
    return tpu_strips.joined(_normalised(norm, tpu_strips.cut(x), scale, bias))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalised(norm: Norm, x: Array, scale: Array, bias: Array) -> Array:  # b ... c, c, c
    return _forward(norm, x, scale, bias)[0]


def _forward(norm: Norm, x: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Array, ...]]:
    mean, inverse = (_two_passes if norm.on_cpu else _one_pass)(norm, x)
    y = _centred(x, mean) * _over_pixels(inverse * scale, x) + bias
    y = y.astype(x.dtype) if norm.on_cpu else y
    y = (jax.nn.silu(y) if norm.silu else y).astype(x.dtype)
    return y, (x, scale, bias, mean, inverse)


def _two_passes(norm: Norm, x: Array) -> tuple[Array, Array]:
    """The mean of every channel's group, and one over its deviation, fp32: b c."""
    x = x.astype(jnp.float32)
    mean = _of_group(_pixel_mean(x), norm)
    variance = _of_group(_pixel_mean(jnp.square(_centred(x, mean))), norm)
    return mean, lax.rsqrt(variance + norm.eps)


def _one_pass(norm: Norm, x: Array) -> tuple[Array, Array]:
    """The same, of distances from an estimate of the mean: their squares lose no digits to it."""
    estimate = _of_group(_pixel_mean(_sample(x).astype(jnp.float32)), norm)
    distance = _centred(x, estimate)
    mean = _of_group(_pixel_mean(distance), norm)
    variance = _of_group(_pixel_mean(jnp.square(distance)), norm) - jnp.square(mean)
    return estimate + mean, lax.rsqrt(jnp.maximum(variance, 0) + norm.eps)


def _sample(x: Array) -> Array:
    """A few pixels from all over an example; of one in strips, the first row of each."""
    return x[:, :, 0] if x.ndim == 5 else x[:, :: -(-x.shape[1] // _SAMPLES)]


def _backward(norm: Norm, kept: tuple[Array, ...], d_out: Array) -> tuple[Array, Array, Array]:
    x, scale, bias, mean, inverse = kept
    pixel_sum = _pixel_sum_by_product if norm.on_cpu else _pixel_sum
    pixels = x[0, ..., 0].size
    centred, d_y = _centred(x, mean), d_out.astype(jnp.float32)
    if norm.silu:
        y = centred * _over_pixels(inverse * scale, x) + bias
        gate = jax.nn.sigmoid(y)
        d_y = d_y * (gate * (1 + y * (1 - gate)))
    d_bias, d_scale = pixel_sum(d_y), pixel_sum(d_y * centred) * inverse  # b c
    # The output does not change when x moves by a constant, or away from its mean.
    by_constant = _of_group(d_bias * scale, norm) / pixels
    from_mean = _of_group(d_scale * scale, norm) / pixels * inverse
    d_x = d_y * scale - _over_pixels(by_constant, x) - centred * _over_pixels(from_mean, x)
    d_x = (d_x * _over_pixels(inverse, x)).astype(x.dtype)
    return d_x, d_scale.sum(0).astype(scale.dtype), d_bias.sum(0).astype(scale.dtype)


_normalised.defvjp(_forward, _backward)


def _centred(x: Array, mean: Array) -> Array:  # b ... c, b c
    return x.astype(jnp.float32) - _over_pixels(mean, x)


def _over_pixels(values: Array, x: Array) -> Array:  # b c -> b 1 .. c
    return jnp.expand_dims(values, _pixel_axes(x))


def _pixel_axes(x: Array) -> tuple[int, ...]:
    return tuple(range(1, x.ndim - 1))


def _of_group(means: Array, norm: Norm) -> Array:  # b c
    """Every channel's mean, replaced by that of its group."""
    b, c = means.shape
    per_group = means.reshape(b, norm.groups, -1).mean(-1)
    return jnp.repeat(per_group, c // norm.groups, axis=-1)


def _pixel_mean(x: Array) -> Array:  # b ... c -> b c
    return jnp.mean(x, _pixel_axes(x))


def _pixel_sum(x: Array) -> Array:  # b ... c -> b c
    return jnp.sum(x, _pixel_axes(x))


def _pixel_sum_by_product(x: Array) -> Array:  # b n c -> b c
    ones = jnp.ones((x.shape[0], 1, x.shape[1]), x.dtype)
    return jnp.matmul(ones, x)[:, 0]
