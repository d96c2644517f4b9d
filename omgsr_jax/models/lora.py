"""Low-rank adapters with peft's meaning: base(x) + scaling * B(A(x)).

A has the base layer's kernel, stride and padding and puts out `rank` channels; B is 1 x 1; neither
has a bias. `inject` wraps the layers that an adapter targets, `merge` folds the adapters into their
layers for inference, `unmerge` takes them out again. Never train through a merged weight.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from .layers import Conv, Linear, Rngs, draw

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
    """A linear or convolution layer together with its adapter."""

    def __init__(self, base_layer: Linear | Conv, spec: LoRASpec, *, rngs: Rngs):
        *window, c_in, c_out = base_layer.kernel.get_value().shape  # Linear: no window
        gaussian = jax.nn.initializers.normal(1 / spec.rank)
        self.base_layer = base_layer
        self.lora_A = LoRAFactor(draw(gaussian, rngs, *window, c_in, spec.rank))
        self.lora_B = LoRAFactor(jnp.zeros((*[1 for _ in window], spec.rank, c_out), jnp.float32))
        self.scaling = spec.scaling

    def __call__(self, x: Array) -> Array:
        base = self.base_layer
        dtype = base.kernel.dtype
        x = x.astype(dtype)
        a, b = (factor.kernel[...].astype(dtype) for factor in (self.lora_A, self.lora_B))
        reduced = x @ a if isinstance(base, Linear) else base.convolve(x, a)  # ... r
        adapted = reduced @ b.reshape(b.shape[-2:])
        return base(x) + self.scaling * adapted

    def delta(self) -> Array:
        """What the adapter adds to the base layer's kernel."""
        a, b = self.lora_A.kernel[...], self.lora_B.kernel[...]
        return self.scaling * (a @ b.reshape(b.shape[-2:]))


def targeted(model: nnx.Module, spec: LoRASpec) -> list[str]:
    """The paths of the layers that `spec` puts an adapter on, in the model's order."""
    return [
        path
        for path, module in _modules(model)
        if isinstance(module, Linear | Conv) and spec.matches(path)
    ]


def inject(model: nnx.Module, spec: LoRASpec, *, expected: int | None = None, rngs: Rngs) -> int:
    """Puts fresh adapters (A ~ N(0, 1/rank), B = 0) on the targeted layers of `model`, in place.

    Returns how many; anything but `expected` is an error.
    """
    paths = targeted(model, spec)
    if not paths or (expected is not None and len(paths) != expected):
        raise ValueError(
            f"the targets {', '.join(spec.targets)} match {len(paths)} layers of "
            f"{type(model).__name__}, expected {expected or 'at least one'}"
        )
    for path in paths:
        _replace(model, path, LoRA(_get(model, path), spec, rngs=rngs))
    return len(paths)


def count(model: nnx.Module) -> int:
    """How many layers of `model` carry an adapter."""
    return sum(isinstance(module, LoRA) for _, module in _modules(model))


def merge(model: nnx.Module) -> dict[str, LoRA]:
    """Folds every adapter into its base layer, in place; returns the adapters for `unmerge`."""
    adapters = {path: module for path, module in _modules(model) if isinstance(module, LoRA)}
    for path, adapter in adapters.items():
        _shift_kernel(adapter.base_layer, adapter.delta())
        _replace(model, path, adapter.base_layer)
    return adapters


def unmerge(model: nnx.Module, adapters: dict[str, LoRA]) -> None:
    """Undoes `merge`, up to the rounding of the weights' dtype."""
    for path, adapter in adapters.items():
        adapter.base_layer = _get(model, path)
        _shift_kernel(adapter.base_layer, -adapter.delta())
        _replace(model, path, adapter)


def _shift_kernel(layer: Linear | Conv, delta: Array) -> None:
    kernel = layer.kernel[...]
    layer.kernel.set_value((kernel.astype(jnp.float32) + delta).astype(kernel.dtype))


def _modules(model: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    for path, module in nnx.iter_modules(model):
        yield ".".join(map(str, path)), module


def _get(model: nnx.Module, path: str) -> Any:
    found: Any = model
    for name in path.split("."):
        found = found[int(name)] if name.isdigit() else getattr(found, name)
    return found


def _replace(model: nnx.Module, path: str, module: nnx.Module) -> None:
    parent, _, name = path.rpartition(".")
    holder: Any = _get(model, parent) if parent else model
    if name.isdigit():
        holder[int(name)] = module
    else:
        setattr(holder, name, module)
