"""Reading a state back onto devices: every process its shards, or one replica for all.

Where the mesh has replicas over `data` and each process lies within one of them, the first replica
reads, and the others get the state over the network between them: a bucket or a file server is
asked once, however many replicas there are.
"""

from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh, NamedSharding
from orbax.checkpoint import type_handlers

_REPLICAS = "data"


def restore(path: epath.Path, shapes: Any, shardings: Any) -> Any:
    """What Orbax wrote to `path`, in arrays of these shapes."""
    mesh = mesh_with_replicas(shardings)
    if mesh is None:
        return ocp.StandardCheckpointer().restore(path, on_devices(shapes, shardings))
    handler = type_handlers.SingleReplicaArrayHandler(
        replica_axis_index=mesh.axis_names.index(_REPLICAS)
    )
    registry = type_handlers.create_type_handler_registry((jax.Array, handler))
    how = jax.tree.map(
        lambda leaf, sharding: ocp.type_handlers.SingleReplicaArrayRestoreArgs(
            sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype
        ),
        shapes,
        shardings,
    )
    request = ocp.args.PyTreeRestore(item=on_devices(shapes, shardings), restore_args=how)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(type_handler_registry=registry)) as reader:
        return reader.restore(path, args=request)


def mesh_with_replicas(shardings: Any) -> Mesh | None:
    """The mesh of a state of which one replica can be read for all, if it is such a one."""
    leaves = jax.tree.leaves(shardings)
    if not all(isinstance(sharding, NamedSharding) for sharding in leaves):
        return None
    mesh: Mesh = leaves[0].mesh
    divided = {axis for sharding in leaves for part in sharding.spec for axis in _axes(part)}
    if mesh.shape.get(_REPLICAS, 1) == 1 or _REPLICAS in divided or _spans_replicas(mesh):
        return None
    return mesh


def _axes(part: Any) -> tuple[str, ...]:
    return part if isinstance(part, tuple) else (part,)


def _spans_replicas(mesh: Mesh) -> bool:
    """Whether a process has devices in several of them."""
    replica_of: dict[int, int] = {}
    by_replica = np.moveaxis(mesh.devices, mesh.axis_names.index(_REPLICAS), 0)
    return any(
        replica_of.setdefault(device.process_index, replica) != replica
        for replica, devices in enumerate(by_replica)
        for device in devices.flat
    )


def on_devices(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )
