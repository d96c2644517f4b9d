"""Weights in 8 bits: each output channel of a linear layer as integers and one factor.

Only the weights are quantised. The factor is applied to the product, so that the integers go into
the matrix multiplication as they are, converted on the way; biases, norms and all that is not a
linear layer keep their precision.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from .blocks import BasicTransformerBlock
from .layers import Linear
from .paths import modules, replace
from .stack import Sequence, Stack

_LARGEST = 127
_BLOCKS = (BasicTransformerBlock, Sequence, Stack)  # of a UNet, and of a transformer


class Int8Linear(nnx.Module):
    """A linear layer, or a stack of them, that computes in the dtype which its kernel had."""

    def __init__(self, layer: Any, dtype: Any):
        kernel, factor = quantised(layer.kernel.get_value())
        self.kernel = nnx.Param(kernel)  # ... c_in c_out, int8
        self.factor = nnx.Param(factor)  # ... c_out, fp32
        self.bias = layer.bias
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: Array) -> Array:  # ... c_in -> ... c_out
        y = x.astype(self.dtype) @ self.kernel[...].astype(self.dtype)
        y = (y * self.factor[...]).astype(self.dtype)
        return y if self.bias is None else y + self.bias[...]

    def of_parts(self, *parts: Array) -> Array:
        """The output for features that come in parts: ... c_1, ... c_2 -> ... c_out"""
        return self(jnp.concatenate(parts, axis=-1))


def quantised(kernel: Any) -> tuple[Any, Any]:
    """Integers and factors whose products are the kernel, within half a factor.

    NumPy arrays are quantised layer by layer, to spare memory; shapes become shapes.
    """
    if isinstance(kernel, jax.ShapeDtypeStruct):
        factor = jax.ShapeDtypeStruct((*kernel.shape[:-2], kernel.shape[-1]), jnp.float32)
        return jax.ShapeDtypeStruct(kernel.shape, jnp.int8), factor
    if isinstance(kernel, np.ndarray) and kernel.ndim == 3:
        integers, factors = zip(*map(quantised, kernel), strict=True)
        return np.stack(integers), np.stack(factors)
    xp = np if isinstance(kernel, np.ndarray) else jnp
    kernel = kernel.astype(jnp.float32)
    factor = xp.abs(kernel).max(-2, keepdims=True) / _LARGEST
    integers = xp.round(kernel / xp.where(factor == 0, 1, factor)).astype(jnp.int8)
    return integers, factor.squeeze(-2)


def quantise(model: nnx.Module, dtype: Any) -> int:
    """Replaces the linear layers of all transformer blocks, in place; they compute in `dtype`.

    The layers outside of the blocks are few, and what they get wrong nothing puts right. Adapters
    are not looked for: merge them first. Returns how many layers there were.
    """
    parts = list(modules(model))
    blocks = tuple(f"{path}." for path, part in parts if isinstance(part, _BLOCKS))
    found = [(p, part) for p, part in parts if type(part) is Linear and p.startswith(blocks)]
    for path, layer in found:
        replace(model, path, Int8Linear(layer, dtype))
    return len(found)
