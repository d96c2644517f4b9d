"""Weights by name: a model's variables in a flat dict, back again, and rules on their names.

A weight's name is its path in the model, such as `vae.encoder.conv_in.kernel`; an adapter's
factors stand beside the kernel that they adapt (`vae.encoder.conv_in.lora_A.kernel`). Training,
checkpoints, sharding and conversion all speak of these names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from .errors import InputError

Module = TypeVar("Module", bound=nnx.Module)
Value = TypeVar("Value")

# What weights are stored in and computed with.
PRECISIONS = {"fp32": jnp.float32, "bf16": jnp.bfloat16}

# A regular expression on a weight's name, and the mesh axes of its last dimensions.
Rule = tuple[str, tuple[str | None, ...]]

# Layers come in pairs: the first ones make heads or hidden features, which can be divided between
# devices, and the second ones sum over these.
SPREADING = r"(to_[qkv]|add_[qkv]_proj|net\.0\.proj|w[13])"
SUMMING = r"(to_out\.0|to_add_out|net\.2|w2)"


def variables(model: nnx.Module) -> dict[str, nnx.Variable]:
    """The variables of a generator, or of a part of it, by name."""
    return by_name(nnx.state(model))


def by_name(state: nnx.State) -> dict[str, nnx.Variable]:
    return {weight_name(path): leaf for path, leaf in state.flat_state()}


def weight_name(path: Iterable[Any]) -> str:
    """The dotted name of a weight: its path, whether its layer is adapted or not."""
    return ".".join(str(part) for part in path if part != "base_layer")


def below(prefix: str, named: Mapping[str, Value]) -> dict[str, Value]:
    """What stands below `prefix`, under names that begin behind it."""
    return {
        name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)
    }


def fill(model: Module, params: Mapping[str, Any]) -> Module:
    """`model` (with shapes in place of arrays) with its weights taken from `params` by name."""
    graph, state = nnx.split(model)
    filled = {path: leaf.replace(params[weight_name(path)]) for path, leaf in state.flat_state()}
    return nnx.merge(graph, nnx.State.from_flat_path(filled))


def specs_by_name(
    shapes: Mapping[str, tuple[int, ...]], rules: Sequence[Rule], mesh: Mesh
) -> dict[str, PartitionSpec]:
    """How each weight is divided: the first rule that matches its name decides.

    A weight without a rule, and a rule without a weight, are errors.
    """
    _check_axes(rules, mesh)
    compiled = [(re.compile(pattern), axes) for pattern, axes in rules]
    used, specs, homeless = set(), {}, []
    for name, shape in shapes.items():
        for i, (pattern, axes) in enumerate(compiled):
            if pattern.search(name):
                used.add(i)
                specs[name] = fitting(axes, shape, mesh)
                break
        else:
            homeless.append(name)
    idle = [repr(rules[i][0]) for i in range(len(rules)) if i not in used]
    if idle and shapes:
        raise InputError(
            f"these sharding rules match no weight that is not taken by one before them: "
            f"{', '.join(idle)}. A name looks like {next(iter(shapes))}"
        )
    if homeless:
        raise InputError(
            f"no sharding rule matches {len(homeless)} weights, such as {homeless[0]}; "
            'end the rules with ("", ()), which leaves the rest on all devices'
        )
    return specs


def _check_axes(rules: Sequence[Rule], mesh: Mesh) -> None:
    for pattern, axes in rules:
        wrong = [axis for axis in axes if axis is not None and axis not in mesh.shape]
        if wrong:
            raise InputError(
                f"the sharding rule {pattern!r} names the axis {wrong[0]!r}; there are "
                f"{', '.join(mesh.shape)}"
            )


def fitting(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The axes of the last dimensions; those that do not divide their dimension are left out."""
    axes = axes[max(0, len(axes) - len(shape)) :]
    aligned = (None,) * (len(shape) - len(axes)) + axes
    return PartitionSpec(
        *(
            axis if axis is not None and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(aligned, shape, strict=True)
        )
    )
