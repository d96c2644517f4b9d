"""How much arithmetic a step needs, counted from the networks' own matrix products.

The count is of what the method needs: each network forward, gradients by activations backward,
gradients by weights for adapters and heads alone. What a compiled program does beyond it is waste.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ..generator import OMGSR
from ..losses.chunks import chunks
from ..losses.total import LOSSES, Look
from ..perceptual import OWN
from ..training.blueprint import Blueprint

_KERNEL_TOKENS = 1024  # from here on TPUs compute attention in a kernel, which XLA does not count

# Dense bf16 FLOP/s, bytes/s of memory, bytes of memory and bytes/s between devices, per device
# (vendors' data sheets). v5e, v6e and v5p are single cores here, as JAX counts devices.
PEAKS: dict[str, tuple[float, float, float, float]] = {
    "TPU v5 lite": (197e12, 819e9, 16e9, 200e9),
    "TPU v6 lite": (918e12, 1640e9, 32e9, 448e9),
    "TPU v5": (459e12, 2765e9, 95e9, 600e9),
    "TPU v5p": (459e12, 2765e9, 95e9, 600e9),
    "TPU v4": (275e12, 1228e9, 32e9, 300e9),
    "NVIDIA A100": (312e12, 2039e9, 80e9, 600e9),
    "NVIDIA H100": (989e12, 3350e9, 80e9, 900e9),
    "NVIDIA H200": (989e12, 4800e9, 141e9, 900e9),
}


class Flops(NamedTuple):
    """Of products with weights, of attention's two products, and how many of those in kernels."""

    weights: float = 0.0
    attention: float = 0.0
    kernels: float = 0.0

    def plus(self, other: "Flops", times: float = 1) -> "Flops":
        return Flops(*(a + times * b for a, b in zip(self, other, strict=True)))


class StepFlops(NamedTuple):
    total: float
    kernels: float  # the part of it inside of attention kernels


def peaks(device_kind: str) -> tuple[float, float, float, float] | None:
    """The peaks of a device by JAX's name for its kind, if they are known."""
    found = [name for name in PEAKS if device_kind.startswith(name)]
    return PEAKS[max(found, key=len)] if found else None


def utilisation(blueprint: Blueprint) -> Callable[[float], float] | None:
    """The share of all devices' peak that a step uses, by the seconds that it takes.

    None where their peak is not known.
    """
    limits = peaks(jax.devices()[0].device_kind)
    if limits is None:
        return None
    needed, possible = step_flops(blueprint).total, limits[0] * jax.device_count()
    return lambda seconds: needed / seconds / possible


def step_flops(blueprint: Blueprint, *, loops_once: bool = False) -> StepFlops:
    """What one optimiser step needs; with `loops_once` as XLA counts it, a loop's body once."""
    forward = partial(forward_flops, loops_once=loops_once)
    config, generator = blueprint.config, blueprint.generator_config
    pixels = config.data.resolution
    side = pixels // generator.vae.downsampling
    image, latent = (pixels, pixels, 3), (side, side, generator.vae.latent_channels)
    plain = OMGSR(generator.without_adapters, rngs=None)
    again = 1 if config.model.remat else 0  # activations computed a second time

    total = forward(plain, lambda m, x: m.vae.encode(x).mean, image)  # z_H
    if generator.adaptive:
        total = total.plus(total)  # and z_L without adapters, which the timestep is chosen by
    adapted = (
        (lambda m, x: m.vae.encode(x).mean, image),
        (lambda m, z: m.predict(z), latent),
    )
    for run, shape in adapted:
        base, whole = (forward(m, run, shape) for m in (plain, blueprint.generator))
        total = total.plus(_forward_and_back(whole, base, again))
    decoder = forward(plain, lambda m, z: m.vae.decode(z), latent)
    total = total.plus(_forward_and_back(decoder, decoder, again))

    for loss in config.losses.active:
        if look := LOSSES[loss].look:
            own = {name: of(blueprint.vae) for name, of in OWN.items()}
            network = (blueprint.networks | own)[look.network]
            looks, seen = _seen(look, image)
            one = forward(network, _features, seen)
            repeated = int(getattr(network, "remat", False))
            # At the restored image, with a gradient by it, and at its original.
            total = total.plus(_forward_and_back(one, one, repeated), looks).plus(one, looks)
    if blueprint.discriminator is not None:
        # The generator looks once, with a gradient by the image; the discriminator twice, with
        # gradients by the heads, which are small beside the backbone.
        seen = blueprint.judged_shape
        one = forward(blueprint.discriminator, lambda m, x: m(x, train=True), seen)
        total = total.plus(_forward_and_back(one, one, again)).plus(one, 2)
    per_step = config.data.batch_size
    if loops_once:  # micro-batches are a loop too
        per_step //= config.data.accumulation
    return StepFlops((total.weights + total.attention) * per_step, total.kernels * per_step)


def _seen(look: Look, image: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """How many pictures a network sees of an image, and their shape."""
    if look.window is None:
        return look.times, image
    window = look.window
    count, *shape = jax.eval_shape(lambda x: chunks(x, window), _spec((1, *image))).shape
    return look.times * count, tuple(shape)


def _forward_and_back(whole: Flops, base: Flops, again: int) -> Flops:
    """Forward, gradients by activations (attention has two), and by the adapters' weights."""
    adapters = whole.weights - base.weights
    return Flops(
        (1 + again) * whole.weights + base.weights + 2 * adapters,
        (1 + again) * whole.attention + 2 * base.attention,
        (1 + again) * whole.kernels + 2 * base.kernels,
    )


def forward_flops(
    model: nnx.Module, run: Callable[..., Any], shape: tuple[int, ...], *, loops_once: bool = False
) -> Flops:
    """Of one example."""
    graph, weights, *rest = nnx.split(model, nnx.Param, ...)
    weights = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), weights)
    traced = jax.make_jaxpr(lambda w, r, x: run(nnx.merge(graph, w, *r), x))(
        weights, rest, _spec((1, *shape))
    )
    return count(traced.jaxpr, loops_once)


def count(jaxpr: Any, loops_once: bool = False) -> Flops:
    """Of all products in a jaxpr; where platforms differ, of the one that shows attention whole."""
    total = Flops()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            total = total.plus(_of_dot(equation))
        elif name == "conv_general_dilated":
            total = total.plus(_of_convolution(equation))
        elif name == "cond":
            branches = [count(branch.jaxpr, loops_once) for branch in equation.params["branches"]]
            # The last one is what runs where nobody knows better: some platforms' own ways multiply
            # with zeros, or take fewer products.
            total = total.plus(max(reversed(branches), key=lambda f: f.attention))
        else:
            times = equation.params["length"] if name == "scan" and not loops_once else 1
            for inner in _inner(equation):
                total = total.plus(count(inner, loops_once), times)
    return total


def _inner(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner


def _of_dot(equation: Any) -> Flops:
    (contracted, _), (batched, _) = equation.params["dimension_numbers"]
    left, right = (v.aval.shape for v in equation.invars)
    products = 2.0 * math.prod(equation.outvars[0].aval.shape)
    flops = products * math.prod(left[i] for i in contracted)
    if not batched:
        return Flops(weights=flops)
    tokens = min(max(left), max(right))
    return Flops(attention=flops, kernels=flops if tokens >= _KERNEL_TOKENS else 0.0)


def _of_convolution(equation: Any) -> Flops:
    out = math.prod(equation.outvars[0].aval.shape)
    kernel = equation.invars[1].aval.shape
    features = equation.params["dimension_numbers"].rhs_spec[0]
    return Flops(weights=2.0 * out * math.prod(kernel) / kernel[features])


def _features(model: Any, x: Any) -> Any:
    return model.features(x)


def _spec(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
