"""The layers that every network here is made of.

A layer computes in the dtype of its weights, so choosing a precision is casting the weights once.
Normalisation statistics are fp32 whatever the weights are. Initial values are PyTorch's defaults;
with `rngs=None` a network is built with shapes in place of large arrays, to be filled later.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from .ops.convolution import convolve, convolve_doubled
from .ops.group_norm import group_norm
from .ops.product import product_of_parts
from .ops.rows import by_rows, gathered

Module = TypeVar("Module", bound=nnx.Module)
Rngs = nnx.Rngs | None
Initializer = Callable[..., Array]

_init_kernel = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_init_embedding = jax.nn.initializers.normal(0.02)


def initial(init: Initializer, rngs: Rngs, *shape: int) -> Any:
    """Initial values, or only their shape where there is no source of randomness."""
    if rngs is None:
        return jax.ShapeDtypeStruct(shape, jnp.float32)
    return init(rngs.params(), shape, jnp.float32)


def zeros(rngs: Rngs, *shape: int) -> Any:
    """Zeros, or only their shape; they use up no randomness."""
    return jax.ShapeDtypeStruct(shape, jnp.float32) if rngs is None else jnp.zeros(shape)


def abstract(model: Module) -> Module:
    """`model` with shapes in place of all arrays."""
    graph, state = nnx.split(model)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    return nnx.merge(graph, shapes)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
}


def require_activation(name: str) -> None:
    if name not in ACTIVATIONS:
        raise ValueError(f"hidden_act {name!r} is not supported, only {', '.join(ACTIVATIONS)}")


def require_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"{width} channels cannot be divided among {heads} heads")


class Linear(nnx.Module):
    def __init__(self, c_in: int, c_out: int, *, bias: bool = True, rngs: Rngs):
        self.kernel = nnx.Param(initial(_init_kernel, rngs, c_in, c_out))
        self.bias = nnx.Param(jnp.zeros(c_out)) if bias else None

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...]
        y = x.astype(kernel.dtype) @ kernel  # ... c_in -> ... c_out
        return y if self.bias is None else y + self.bias[...]

    def of_parts(self, *parts: Array) -> Array:
        """The output for features that come in parts: ... c_1, ... c_2 -> ... c_out"""
        kernel = self.kernel[...]
        y = product_of_parts([part.astype(kernel.dtype) for part in parts], kernel)
        return y if self.bias is None else y + self.bias[...]


Padding = int | tuple[tuple[int, int], tuple[int, int]]


class Conv(nnx.Module):
    """A 2-D convolution, `kernel` x `kernel` or (height, width).

    `padding` is one number for every side, or ((top, bottom), (left, right)). With `groups`, every
    group of output channels sees its own group of input channels only.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: Padding = 0,
        groups: int = 1,
        bias: bool = True,
        rngs: Rngs,
    ):
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.kernel = nnx.Param(initial(_init_kernel, rngs, *size, c_in // groups, c_out))
        self.bias = nnx.Param(jnp.zeros(c_out)) if bias else None
        self.stride = stride
        self.padding = ((padding, padding),) * 2 if isinstance(padding, int) else padding

    def __call__(self, x: Array) -> Array:  # b h w c_in -> b h' w' c_out
        return self.convolve(x, self.kernel[...], self._bias())

    def of_doubled(self, x: Array) -> Array:  # b h w c_in -> b 2h 2w c_out
        """The output for `x` with every pixel doubled; of a 3 x 3 kernel with padding 1 only."""
        return by_rows(convolve_doubled(by_rows(x), gathered(self.kernel[...]), self._bias()))

    def of_strip(self, x: Array) -> Array:  # b h w c_in -> b h' w' c_out
        """The output for rows of an image that come with their halo: no rows are padded."""
        padding = ((0, 0), self.padding[1])
        kernel, bias = self.kernel[...], self._bias()
        return convolve(x, kernel, bias, stride=self.stride, padding=padding)

    def convolve(self, x: Array, kernel: Array, bias: Array | None = None) -> Array:
        """`x` under any kernel (h w c_in/groups c_out), with this layer's stride and padding."""
        x = by_rows(x)
        y = convolve(x, gathered(kernel), bias, stride=self.stride, padding=self.padding)
        return by_rows(y)

    def _bias(self) -> Array | None:
        return None if self.bias is None else self.bias[...]


class GroupNorm(nnx.Module):
    def __init__(self, channels: int, *, groups: int = 32, eps: float = 1e-5):
        if channels % groups:
            raise ValueError(f"{channels} channels cannot be normalised in {groups} groups")
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.groups = groups
        self.eps = eps

    def __call__(self, x: Array, *, silu: bool = False) -> Array:  # b ... c
        """`x` normalised; with `silu`, put through that function."""
        scale, bias = self.scale[...], self.bias[...]
        return group_norm(x, scale, bias, groups=self.groups, eps=self.eps, silu=silu)


class LayerNorm(nnx.Module):
    def __init__(self, channels: int, *, eps: float = 1e-5):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.eps = eps

    def __call__(self, x: Array) -> Array:  # ... c
        y = standardised(x, self.eps)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


def standardised(x: Array, eps: float) -> Array:
    """Channels with mean 0 and variance 1, fp32: ... c."""
    y = x.astype(jnp.float32)
    y = y - y.mean(-1, keepdims=True)
    return y * lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + eps)


class RMSNorm(nnx.Module):
    def __init__(self, channels: int, *, eps: float = 1e-6):
        self.scale = nnx.Param(jnp.ones(channels))
        self.eps = eps

    def __call__(self, x: Array) -> Array:  # ... c
        y = x.astype(jnp.float32)
        y = y * lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps)
        return (y * self.scale[...]).astype(x.dtype)


class Embedding(nnx.Module):
    def __init__(self, count: int, channels: int, *, rngs: Rngs):
        self.embedding = nnx.Param(initial(_init_embedding, rngs, count, channels))

    def __call__(self, ids: Array) -> Array:  # ... -> ... c
        return jnp.take(self.embedding[...], ids, axis=0)


class Identity(nnx.Module):
    """Keeps a place in a numbered list where PyTorch has a layer without weights (dropout)."""

    def __call__(self, x: Array) -> Array:
        return x


def remat(block: nnx.Module, *args: Any, **static: Any) -> Any:
    """Calls `block`, and keeps only its inputs for the backward pass."""
    graph, state = nnx.split(block)

    def run(state: nnx.State, *args: Any) -> Any:
        return nnx.merge(graph, state)(*args, **static)

    return jax.checkpoint(run)(state, *args)
