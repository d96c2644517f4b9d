"""Low-rank adapters with peft's meaning: base(x) + scaling * B(A(x)).

A has the base layer's kernel, stride and padding and puts out `rank` channels; B is 1 x 1; neither
has a bias. `inject` wraps the layers that an adapter targets, `merge` folds the adapters into their
layers for inference, `unmerge` takes them out again. Never train through a merged weight.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from . import stack
from .layers import Conv, Linear, Rngs, initial, zeros
from .ops.convolution import doubled
from .ops.product import narrow_product
from .paths import get, modules, replace

# The published targets in the VAE encoder and in the UNet.
SD_TARGETS = (
    "conv1",
    "conv2",
    "conv_in",
    "conv_shortcut",
    "conv",
    "conv_out",
    "to_k",
    "to_q",
    "to_v",
    "to_out.0",
)
# Those in FLUX. Single-stream blocks have only the attention's first three of these.
FLUX_TARGETS = (
    "x_embedder",
    "attn.to_k",
    "attn.to_q",
    "attn.to_v",
    "attn.to_out.0",
    "attn.add_k_proj",
    "attn.add_q_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
    "ff.net.0.proj",
    "ff.net.2",
    "ff_context.net.0.proj",
    "ff_context.net.2",
)

_LONGEST_LIST = 200  # characters, in a message


@dataclass(frozen=True)
class LoRASpec:
    """What an adapter is: its rank, its alpha, the layers it is on."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = SD_TARGETS
    rslora: bool = False

    @property
    def scaling(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def matches(self, path: str) -> bool:
        """A target names a layer by its whole path or by the end of it, as in peft."""
        return any(path == target or path.endswith(f".{target}") for target in self.targets)


class LoRAFactor(nnx.Module):
    """A or B: a kernel without a bias, trained in fp32, computing in its input's dtype."""

    def __init__(self, kernel: Array):
        self.kernel = nnx.LoRAParam(kernel)


class LoRA(nnx.Module):
    """A linear or convolution layer together with its adapter; or a stack of linear layers."""

    def __init__(self, base_layer: Linear | Conv, spec: LoRASpec, *, rngs: Rngs):
        # In front of the channels, a convolution has its window, a stack its depth.
        *first, c_in, c_out = base_layer.kernel.get_value().shape
        gaussian = jax.nn.initializers.normal(1 / spec.rank)
        self.base_layer = base_layer
        self.lora_A = LoRAFactor(initial(gaussian, rngs, *first, c_in, spec.rank))
        first = [1 for _ in first] if isinstance(base_layer, Conv) else first
        self.lora_B = LoRAFactor(zeros(rngs, *first, spec.rank, c_out))
        self.scaling = spec.scaling

    def __call__(self, x: Array) -> Array:
        base = self.base_layer
        dtype = base.kernel.dtype
        x = x.astype(dtype)
        a, b = (factor.kernel[...].astype(dtype) for factor in (self.lora_A, self.lora_B))
        reduced = narrow_product(x, a) if isinstance(base, Linear) else base.convolve(x, a)
        adapted = narrow_product(reduced, b.reshape(b.shape[-2:]))  # ... r -> ... c_out
        return base(x) + self.scaling * adapted

    def of_parts(self, *parts: Array) -> Array:
        """The output for features that come in parts: ... c_1, ... c_2 -> ... c_out"""
        return self(jnp.concatenate(parts, axis=-1))

    def of_doubled(self, x: Array) -> Array:  # b h w c_in -> b 2h 2w c_out
        """The output for `x` with every pixel doubled: see `Conv.of_doubled`."""
        return self(doubled(x))

    def delta(self) -> Array:
        """What the adapter adds to the base layer's kernel."""
        return self.scaling * (self.lora_A.kernel[...] @ self.lora_B.kernel[...])


def targeted(model: nnx.Module, spec: LoRASpec) -> list[str]:
    """The paths of the layers that `spec` puts an adapter on, in the model's order.

    The layers of a stack have one path.
    """
    return [
        path
        for path, module in modules(model)
        if isinstance(module, Linear | Conv) and spec.matches(path)
    ]


def inject(model: nnx.Module, spec: LoRASpec, *, expected: int | None = None, rngs: Rngs) -> int:
    """Puts fresh adapters (A ~ N(0, 1/rank), B = 0) on the targeted layers of `model`, in place.

    Returns how many layers were adapted; anything but `expected` is an error.
    """
    paths = targeted(model, spec)
    found = sum(_depth(path, get(model, path)) for path in paths)
    names = ", ".join(spec.targets)
    if len(names) > _LONGEST_LIST:
        names = f"{names[:_LONGEST_LIST]} ..."
    if not found or (expected is not None and found != expected):
        raise ValueError(
            f"the targets {names} match {found} layers of {type(model).__name__}, expected "
            f"{expected or 'at least one'}"
        )
    for path in paths:
        replace(model, path, LoRA(get(model, path), spec, rngs=rngs))
    return found


def count(model: nnx.Module) -> int:
    """How many layers of `model` carry an adapter."""
    return sum(
        _depth(path, module.base_layer)
        for path, module in modules(model)
        if isinstance(module, LoRA)
    )


def merge(model: nnx.Module, *, dtype: DTypeLike | None = None) -> dict[str, LoRA]:
    """Folds every adapter into its base layer, in place; returns the adapters for `unmerge`.

    The sum is rounded to `dtype`, by default the base weight's own.
    """
    adapters = {path: module for path, module in modules(model) if isinstance(module, LoRA)}
    for path, adapter in adapters.items():
        _shift_kernel(adapter.base_layer, adapter.delta(), dtype)
        # One after the other: what a sum needs besides the kernel is gone before the next begins.
        jax.block_until_ready(adapter.base_layer.kernel.get_value())
        replace(model, path, adapter.base_layer)
    return adapters


def unmerge(model: nnx.Module, adapters: dict[str, LoRA]) -> None:
    """Undoes `merge`, up to the rounding of the weights' dtype."""
    for path, adapter in adapters.items():
        adapter.base_layer = get(model, path)
        _shift_kernel(adapter.base_layer, -adapter.delta())
        replace(model, path, adapter)


def _shift_kernel(layer: Linear | Conv, delta: Array, dtype: DTypeLike | None = None) -> None:
    kernel = layer.kernel[...]
    layer.kernel.set_value((kernel.astype(jnp.float32) + delta).astype(dtype or kernel.dtype))


def _depth(path: str, layer: Linear | Conv) -> int:
    return stack.depth(path, layer.kernel.get_value().shape)
