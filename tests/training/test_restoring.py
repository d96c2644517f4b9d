"""Where a state is read from, and by whom."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from omgsr_jax.training import restoring
from omgsr_jax.training.layout import AXES

_ROOT = Path(__file__).parents[2]
_WORKER = Path(__file__).with_name("restoring_worker.py")


def _mesh(processes_of, shape):
    """Of devices that are not there; each is of the process that is named for it."""
    devices = np.empty(shape, object)
    devices.flat = [SimpleNamespace(process_index=process) for process in processes_of]
    return SimpleNamespace(
        devices=devices, axis_names=AXES, shape=dict(zip(AXES, shape, strict=True))
    )


@pytest.mark.parametrize(
    ("processes", "shape", "spec", "expected"),
    [
        ((0, 0, 1, 1), (2, 2, 1, 1), (None, "fsdp"), True),
        ((0, 1, 2, 3), (2, 2, 1, 1), (("fsdp", "tensor"),), True),
        ((0, 0, 1, 1), (1, 4, 1, 1), ("fsdp",), False),  # there is one replica
        ((0, 1, 0, 1), (2, 2, 1, 1), ("fsdp",), False),  # a process lies in both
        ((0, 0, 0, 0), (4, 1, 1, 1), (), False),  # and here in four
        ((0, 1), (2, 1, 1, 1), ("data",), False),  # the replicas differ
    ],
)
def test_one_replica_reads_for_all_where_there_are_several(
    processes, shape, spec, expected, monkeypatch
):
    mesh = _mesh(processes, shape)
    monkeypatch.setattr(restoring, "NamedSharding", SimpleNamespace)
    found = restoring.mesh_with_replicas([SimpleNamespace(mesh=mesh, spec=spec)])
    assert (found is mesh) == expected


@pytest.mark.slow
def test_the_second_replica_gets_its_state_from_the_first(fake_buckets, bucket):
    """It could not read the arrays by itself: TensorStore finds no server there."""
    kernel = jnp.arange(24.0).reshape(8, 3)
    path = epath.Path(f"gs://{bucket}/state")
    with ocp.StandardCheckpointer() as writer:
        writer.save(path, {"step": jnp.int32(7), "weights": {"kernel": kernel}, "empty": {}})
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    common = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    blind = common | {"TENSORSTORE_GCS_HTTP_URL": "http://127.0.0.1:1"}
    processes = [
        subprocess.Popen(
            [sys.executable, _WORKER, address, str(index), str(path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, environment in enumerate((common, blind))
    ]
    for process in processes:
        out, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors[-3000:]
        assert json.loads(out.splitlines()[-1]) == [7, *kernel.reshape(2, -1).sum(1).tolist()]
