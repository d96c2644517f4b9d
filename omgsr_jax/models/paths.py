"""Modules by their path, such as `mid_block.resnets.0.conv1`: to list, to find, to exchange."""

from collections.abc import Iterator
from typing import Any

from flax import nnx


def modules(model: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    for path, module in nnx.iter_modules(model):
        yield ".".join(map(str, path)), module


def get(model: nnx.Module, path: str) -> Any:
    found: Any = model
    for name in path.split("."):
        found = found[int(name)] if name.isdigit() else getattr(found, name)
    return found


def replace(model: nnx.Module, path: str, module: nnx.Module) -> None:
    parent, _, name = path.rpartition(".")
    holder: Any = get(model, parent) if parent else model
    if name.isdigit():
        holder[int(name)] = module
    else:
        setattr(holder, name, module)
