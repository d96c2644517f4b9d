"""One of two processes, each a replica, that restore a state; run by test_restoring.py.

    python tests/training/restoring_worker.py ADDRESS INDEX PATH

Prints the sums of what it has then.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath


def main(address: str, index: int, path: str) -> None:
    jax.distributed.initialize(address, 2, index)
    from omgsr_jax.training import restoring
    from omgsr_jax.training.config import MeshConfig
    from omgsr_jax.training.layout import make_mesh, replicated

    mesh = make_mesh(MeshConfig(data=2, fsdp=2))
    by_rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    shapes = {
        "step": jax.ShapeDtypeStruct((), jnp.int32),
        "weights": {"kernel": jax.ShapeDtypeStruct((8, 3), jnp.float32)},
        "empty": {},
    }
    shardings = {"step": replicated(mesh), "weights": {"kernel": by_rows}, "empty": {}}
    assert restoring.mesh_with_replicas(shardings) == mesh
    state = restoring.restore(epath.Path(path), shapes, shardings)
    assert state["weights"]["kernel"].sharding == by_rows
    parts = [np.asarray(s.data) for s in state["weights"]["kernel"].addressable_shards]
    print(json.dumps([int(state["step"]), *(part.sum().item() for part in parts)]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
