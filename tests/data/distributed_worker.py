"""One of several JAX processes that read the same data; run by test_distributed.py.

    python tests/data/distributed_worker.py PORT INDEX COUNT FOLDER host|device OUT.npz

OUT.npz gets, for each of three global batches, `id` and `lr` of the part that this process holds;
on a device the degradation is a program of all processes.
"""

import sys

import jax
import numpy as np


def main(port: str, index: int, count: int, folder: str, degrade_on: str, output: str) -> None:
    jax.distributed.initialize(f"localhost:{port}", count, index)
    from omgsr_jax.data import DataConfig, make_pipeline, to_device
    from omgsr_jax.data.degradation_jax import degrade_function

    config = DataConfig(
        (folder,),
        resolution=64,
        batch_size=4,
        degrade_on=degrade_on,
        workers=0,
    )
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batches = iter(to_device(make_pipeline(config, 5), sharding))
    degrade = degrade_function(config.degradation_config, sharding)
    parts = {}
    for step in range(3):
        batch = next(batches)
        if degrade_on == "device":
            batch["lr"] = degrade(batch["hr"], batch["plan"])
        assert batch["lr"].shape == (4, 64, 64, 3), "the global shape"
        shards = sorted(batch["lr"].addressable_shards, key=lambda s: s.index[0].start or 0)
        parts[f"id{step}"] = batch["id"]
        parts[f"lr{step}"] = np.concatenate([np.asarray(shard.data) for shard in shards])
    np.savez(output, **parts)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
