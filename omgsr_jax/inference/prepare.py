"""A converted model made ready to compute with: adapters merged, weights cast, on the device.

Strengths of PiSA-SR's adapters mix what the network predicts with and without the second one, as
its own code does; scaling that adapter would be another function. So there are two sets of weights,
each merged here, for one compiled program: it costs the backbone's memory twice, and nothing where
no strengths are asked for. Factors beside the merged weights would spare that memory, and slow down
every layer.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ..errors import InputError
from ..generator import OMGSR
from ..models import int8, lora
from ..models.paths import modules, replace
from ..process import Residual
from ..weights import PRECISIONS, Module


def for_inference(model: OMGSR, precision: str) -> OMGSR:
    """Merges the adapters (in fp32), casts to the precision to compute in, and moves to the device.

    "int8" quantises the backbone's blocks and computes in bf16. All of it is done on the host where
    the weights are there, which spares memory, and compiling hundreds of small programs; and on the
    devices over which they are divided, where they are.
    """
    dtype = PRECISIONS["bf16" if precision == "int8" else precision]
    with jax.default_matmul_precision("highest"):
        lora.merge(model.vae.encoder, dtype=dtype)
        lora.merge(model.backbone, dtype=dtype)
    model = _mapped(model, lambda leaf: leaf.astype(dtype, copy=False))
    if precision == "int8":
        int8.quantise(model.backbone, dtype)
    return _mapped(model, jnp.asarray)


def with_fidelity(model: OMGSR, fidelity: float) -> OMGSR:
    """`model`, changed in place: nearer to what it is given, up to 1, or freer, down to -1.

    At 1 z_L enters at half of the timestep and the adapters count half; at -1 at twice the
    timestep, where the network takes more of z_L for noise, and they count half as much again.
    """
    if not fidelity:
        return model
    if isinstance(model.process, Residual):
        raise InputError(
            "fidelity moves the mid-timestep, and this model is told the same time whatever it is "
            "given: take strengths instead"
        )
    model.timestep_factor = 2.0**-fidelity
    for network in (model.vae.encoder, model.backbone):
        for _, part in modules(network):
            if isinstance(part, lora.LoRA):
                part.scaling *= 1 - fidelity / 2
    return model


def without_adapter(model: OMGSR) -> OMGSR:
    """A generator without its backbone's adapter, on the same arrays."""
    if not isinstance(model.process, Residual):
        raise InputError(
            "strengths are those of PiSA-SR's two adapters, and this model is of another recipe: "
            "leave them out"
        )
    bare = nnx.merge(*nnx.split(model))
    adapted = [(path, part) for path, part in modules(bare.backbone) if isinstance(part, lora.LoRA)]
    for path, adapter in adapted:
        replace(bare.backbone, path, adapter.base_layer)
    return bare


def _mapped(model: Module, change: Callable[[Any], Any]) -> Module:
    """`model` with its arrays changed one by one; it loses them, as there may not be room twice."""
    graph, state = nnx.split(model)
    leaves, treedef = jax.tree.flatten(state)
    del state
    for _, part in nnx.iter_modules(model):
        for name, value in list(vars(part).items()):
            if isinstance(value, nnx.Variable):
                delattr(part, name)
    for i, leaf in enumerate(leaves):
        leaves[i] = change(leaf)
    return nnx.merge(graph, jax.tree.unflatten(treedef, leaves))
