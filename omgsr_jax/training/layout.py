"""Where a run's arrays lie on its devices: a mesh with named axes, and rules on weights' names.

Batches are divided over `data` and `fsdp` together, and the rows of an image over `spatial`.
Weights are divided over `fsdp` and `tensor`, as the first rule says that matches their name.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jax import lax
from jax.experimental.mesh_utils import create_hybrid_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ..errors import InputError
from ..models.layers import Module
from ..models.ops.rows import BATCH_AXES, SPATIAL
from ..models.stack import EACH, Stack
from ..weights import Rule, specs_by_name, weight_name
from .config import MeshConfig

# The last ones are the nearest neighbours: they have the most to tell each other.
AXES = ("data", "fsdp", SPATIAL, "tensor")
_IMAGES = ("lr", "hr")  # of a batch


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all devices (of all processes), or of the given ones."""
    devices = jax.devices() if devices is None else devices
    sizes = {axis: getattr(config, axis) for axis in AXES}
    free = [axis for axis, size in sizes.items() if size == -1]
    taken = 1
    for size in sizes.values():
        taken *= max(size, 1)
    if len(free) == 1 and len(devices) % taken == 0:
        sizes[free[0]] = len(devices) // taken
        taken = len(devices)
    if taken != len(devices) or any(size < 1 for size in sizes.values()):
        raise InputError(
            f"the mesh {vars(config)} does not fit {len(devices)} devices: the axes' sizes must "
            "multiply to their number, and at most one may be -1, which takes what is left"
        )
    return _laid_over(sizes, devices)


def data_mesh() -> Mesh:
    """A mesh of all devices, over which nothing but batches is divided."""
    devices = jax.devices()
    return _laid_over(dict.fromkeys(AXES, 1) | {"data": len(devices)}, devices)


def _laid_over(sizes: Mapping[str, int], devices: Sequence[Any]) -> Mesh:
    shape, types = tuple(sizes.values()), (AxisType.Auto,) * len(AXES)
    # TPU slices, or GPU hosts: within them the network is fast.
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    try:
        if slices == 1:
            return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
        between = sizes_between_slices(sizes, slices)
        within = [size // between[axis] for axis, size in sizes.items()]
        grid = create_hybrid_device_mesh(within, tuple(between.values()), devices)
    except NotImplementedError as error:  # on a TPU's torus an axis takes whole sides
        raise InputError(f"the mesh {sizes} cannot be laid over these devices: {error}") from error
    return Mesh(grid, AXES, axis_types=types)


def sizes_between_slices(sizes: Mapping[str, int], slices: int) -> dict[str, int]:
    """How much of each axis crosses the slow network: of `data` all that it can take, else `fsdp`.

    Gradients cross it once a step then, and the weights of a layer only if `data` is too small.
    """
    data = math.gcd(sizes["data"], slices)
    fsdp = slices // data
    if sizes["fsdp"] % fsdp:
        raise InputError(
            f"the mesh {dict(sizes)} does not fit {slices} slices, or hosts with GPUs: data x fsdp "
            f"must be a multiple of {slices}, since spatial and tensor stay within one"
        )
    return dict.fromkeys(AXES, 1) | {"data": data, "fsdp": fsdp}


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of batches as they come: a program takes its rows of an image where it begins."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def micro_batches_sharding(name: str, mesh: Mesh) -> NamedSharding:
    """Of what a batch calls `name`, divided into micro-batches: count b ..."""
    rows = (SPATIAL,) if name in _IMAGES else ()
    return NamedSharding(mesh, PartitionSpec(None, BATCH_AXES, *rows))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


@dataclass(frozen=True)
class Reader:
    """Processes whose devices share images, so that they read the same ones; often only one."""

    number: int  # among all readers
    processes: tuple[int, ...]
    rows: tuple[int, ...]  # of a batch


def readers(batch_size: int, mesh: Mesh) -> list[Reader]:
    """Who reads which examples of a batch, in the order in which they take them in turn."""
    rows: dict[int, set[int]] = {}
    indices: Mapping[Any, Any] = batch_sharding(mesh).devices_indices_map((batch_size,))
    for device, (index,) in indices.items():
        rows.setdefault(device.process_index, set()).update(range(*index.indices(batch_size)))
    together: dict[tuple[int, ...], list[int]] = {}
    for process in sorted(rows):
        together.setdefault(tuple(sorted(rows[process])), []).append(process)
    if sum(map(len, together)) != batch_size:
        raise InputError(
            "the mesh has processes share some of their images with others, and some not: "
            "mesh.spatial x mesh.tensor must divide the devices of a process, or be a multiple of "
            "them"
        )
    return [
        Reader(number, tuple(processes), found)
        for number, (found, processes) in enumerate(together.items())
    ]


def own_reader(batch_size: int, mesh: Mesh) -> tuple[Reader, int]:
    """That of this process, and how many there are."""
    found = readers(batch_size, mesh)
    own = next(reader for reader in found if jax.process_index() in reader.processes)
    return own, len(found)


def check_batch(batch_size: int, accumulation: int, mesh: Mesh) -> None:
    """Every device must get as many whole examples of every micro-batch as any other."""
    shares = accumulation * mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % shares:
        raise InputError(
            f"data.batch_size {batch_size} cannot be divided into {accumulation} micro-batches on "
            f"{mesh.shape['data']} x {mesh.shape['fsdp']} devices (data x fsdp): it must be a "
            f"multiple of {shares}, such as {-(-batch_size // shares) * shares}; with mesh.spatial "
            "several devices share an image"
        )


def check_rows(resolution: int, multiple: int, mesh: Mesh) -> None:
    """Every device that shares an image must get as many whole rows of latents as any other.

    Args:
        resolution: of the images.
        multiple: how many of their rows belong together, behind one row of what a backbone sees.
    """
    rows, shares = resolution // multiple, mesh.shape[SPATIAL]
    if rows % shares:
        divisors = [count for count in range(1, rows + 1) if rows % count == 0]
        raise InputError(
            f"mesh.spatial is {shares}, which does not divide the {rows} rows of latents of images "
            f"of {resolution} px: expected one of {', '.join(map(str, divisors))}, or a "
            f"data.resolution that is a multiple of {shares * multiple}"
        )


@dataclass(frozen=True)
class Layout:
    """Shapes of a run's state and of its frozen weights, and where on a mesh each of them lies."""

    mesh: Mesh
    state: Any  # a TrainState of shapes
    frozen: dict[str, jax.ShapeDtypeStruct]
    state_sharding: Any
    frozen_sharding: dict[str, NamedSharding]

    @classmethod
    def of(
        cls,
        state: Any,
        frozen: dict[str, jax.ShapeDtypeStruct],
        rules: Sequence[Rule],
        mesh: Mesh,
    ) -> "Layout":
        """As the rules say; nothing is allocated."""
        return cls(mesh, state, frozen, *_shardings((state, frozen), rules, mesh))

    @property
    def weights(self) -> dict[str, NamedSharding]:
        """Of the generator's weights, frozen or trained, by name."""
        return self.frozen_sharding | self.state_sharding.generator


def _shardings(tree: Any, rules: Sequence[Rule], mesh: Mesh) -> Any:
    """The sharding of every leaf of `tree`, a pytree of shapes whose dicts' keys are names.

    Leaves outside of dicts (counters) are on all devices.
    """
    specs = specs_by_name(_named_shapes(tree), rules, mesh)

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = _name(path)
        return NamedSharding(mesh, PartitionSpec() if name is None else specs[name])

    return jax.tree_util.tree_map_with_path(sharding, tree)


def gathering(model: Module, shardings: Mapping[str, NamedSharding]) -> Module:
    """`model`, whose stacks gather each block's weights from `fsdp` when its turn comes.

    XLA does so by itself over a few devices. Over many it moves activations instead, several times
    as much.

    Args:
        model: with shapes in place of arrays; it stays as it is.
        shardings: of all its weights, by name.
    """
    model = nnx.merge(*nnx.split(model))
    for path, part in nnx.iter_modules(model):
        if isinstance(part, Stack):
            _gather_blocks(part, weight_name((*path, EACH)), shardings)
    return model


def _gather_blocks(stack: Stack, name: str, shardings: Mapping[str, NamedSharding]) -> None:
    leaves = nnx.state(stack.each).flat_state()
    together = nnx.State.from_flat_path(
        {
            path: leaf.replace(_of_one_block(shardings[f"{name}.{weight_name(path)}"]))
            for path, leaf in leaves
        }
    )
    stack.gather = lambda state: lax.with_sharding_constraint(state, together)


def _of_one_block(sharding: NamedSharding) -> NamedSharding:
    """Where a block's weight is gathered: without the axis of blocks, and without `fsdp`."""
    axes = (None if axis == "fsdp" else axis for axis in sharding.spec[1:])
    return NamedSharding(sharding.mesh, PartitionSpec(*axes))


def _named_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves: Iterable[Any] = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {name: leaf.shape for path, leaf in leaves if (name := _name(path)) is not None}


def _name(path: tuple[Any, ...]) -> str | None:
    names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return names[-1] if names else None
