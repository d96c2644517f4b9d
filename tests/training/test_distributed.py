"""A run starts wherever JAX finds its processes, and lays its mesh over slow and fast networks."""

import json
import math
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental import topologies

from omgsr_jax import launchers
from omgsr_jax.errors import InputError
from omgsr_jax.training.config import MeshConfig
from omgsr_jax.training.layout import AXES, make_mesh, readers, sizes_between_slices

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class _GPU:
    """A device of several GPU hosts, as far as a mesh looks at it."""

    id: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100"

    @property
    def process_index(self) -> int:
        return self.slice_index


def _gpus(hosts: int, each: int = 8) -> list[_GPU]:
    return [_GPU(i, i // each) for i in range(hosts * each)]


def _slices(mesh: jax.sharding.Mesh) -> np.ndarray:
    """Which slice each device of the mesh is in: data fsdp spatial tensor."""
    return np.vectorize(lambda device: device.slice_index)(mesh.devices)


def test_batches_are_divided_between_gpu_hosts_and_weights_within_them():
    mesh = make_mesh(MeshConfig(data=-1, fsdp=2, tensor=2), _gpus(hosts=2))
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "spatial": 1, "tensor": 2}
    slices = _slices(mesh)
    assert (slices[:2] == 0).all()
    assert (slices[2:] == 1).all()
    found = [(reader.processes, len(reader.rows)) for reader in readers(8, mesh)]
    assert found == [((0,), 4), ((1,), 4)]


def test_weights_are_divided_between_hosts_where_batches_cannot_be():
    slices = _slices(make_mesh(MeshConfig(data=1, fsdp=-1), _gpus(hosts=2)))
    assert slices.ravel().tolist() == [0] * 8 + [1] * 8
    sizes = {"data": 2, "fsdp": 8, "spatial": 2, "tensor": 1}
    assert sizes_between_slices(sizes, 4) == {"data": 2, "fsdp": 2, "spatial": 1, "tensor": 1}


@pytest.mark.parametrize("axis", ["spatial", "tensor"])
def test_images_and_tensors_stay_within_one_host(axis):
    with pytest.raises(InputError, match=r"data x fsdp must be a multiple of 2"):
        make_mesh(MeshConfig(data=1, fsdp=1, **{axis: -1}), _gpus(hosts=2))


def _of_hosts_with_four(*sizes: int) -> jax.sharding.Mesh:
    """data fsdp spatial tensor"""
    devices = np.array(_gpus(hosts=math.prod(sizes) // 4, each=4), object)
    return jax.sharding.Mesh(devices.reshape(sizes), AXES)


def test_processes_that_share_images_read_the_same_ones():
    """As on 64 chips with a batch of 8: eight chips of two hosts share each image."""
    found = readers(8, _of_hosts_with_four(8, 1, 8, 1))
    assert [reader.number for reader in found] == list(range(8))
    assert [reader.processes for reader in found] == [(2 * i, 2 * i + 1) for i in range(8)]
    assert [reader.rows for reader in found] == [(i,) for i in range(8)]
    (alone,) = readers(1, _of_hosts_with_four(1, 1, 8, 2))
    assert alone.processes == (0, 1, 2, 3)


def test_processes_that_share_some_of_their_images_are_refused():
    with pytest.raises(InputError, match="be a multiple of them"):
        readers(4, _of_hosts_with_four(4, 1, 6, 1))


@pytest.mark.tpu_compiler
def test_two_tpu_slices_are_laid_over_the_slow_network():
    pytest.importorskip("libtpu")
    devices = topologies.get_topology_desc("v5e:2x2", platform="tpu", num_slices=2).devices
    slices = _slices(make_mesh(MeshConfig(data=-1, fsdp=2), devices))
    assert (slices[:2] == 0).all()
    assert (slices[2:] == 1).all()


@pytest.mark.parametrize(
    ("environment", "alone"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "2"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, True),
        ({"SLURM_NTASKS": "16", "SLURM_STEP_NUM_NODES": "2"}, False),
        ({"SLURM_NTASKS": "2"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "2", "JAX_LOCAL_DEVICE_IDS": "0"}, False),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, True),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, False),
    ],
)
def test_one_process_on_a_host_gets_all_its_devices(environment, alone):
    assert launchers.has_the_host_for_itself(environment) == alone


class _Metadata(BaseHTTPRequestHandler):
    """What a TPU VM's metadata server says to worker I, who asks at /worker-I (a proxy's path)."""

    def do_GET(self) -> None:
        *_, key = self.path.split("/")
        worker = self.path.split("/")[1].removeprefix("worker-")
        values = {
            "agent-worker-number": worker,
            "worker-network-endpoints": "unknown:8470:127.0.0.1,unknown:8470:127.0.0.1",
            "tpu-env": "ACCELERATOR_TYPE: 'v5litepod-16'\n",
        }
        self.send_response(200 if key in values else 404)
        self.end_headers()
        self.wfile.write(values.get(key, "").encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def metadata():
    server = HTTPServer(("127.0.0.1", 0), _Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def _clusters(metadata: str, worker: int) -> dict[str, dict[str, str]]:
    """The variables that process `worker` of two finds, one process on each host."""
    return {
        "TPU VMs": {"JAX_FORCE_TPU_INIT": "1", "GCE_METADATA_IP": f"{metadata}/worker-{worker}"},
        "GKE": {
            "JAX_FORCE_TPU_INIT": "1",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost,localhost",
            "TPU_WORKER_ID": str(worker),
            "MEGASCALE_NUM_SLICES": "1",
            "MEGASCALE_SLICE_ID": "0",
            "MEGASCALE_COORDINATOR_ADDRESS": "localhost",
        },
        "Slurm": {
            "SLURM_JOB_ID": "7",
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": "2",
            "SLURM_STEP_NUM_NODES": "2",
            "SLURM_PROCID": str(worker),
            "SLURM_LOCALID": "0",
        },
        "Open MPI, devices chosen": {
            "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:1",
            "OMPI_COMM_WORLD_SIZE": "2",
            "OMPI_COMM_WORLD_RANK": str(worker),
            "OMPI_COMM_WORLD_LOCAL_RANK": "0",
            "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
            "JAX_LOCAL_DEVICE_IDS": "0",
        },
    }


@pytest.mark.slow
def test_the_processes_of_every_cluster_find_each_other(metadata):
    started = {}
    for name in _clusters(metadata, 0):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = str(free.getsockname()[1])
        for worker in range(2):
            environment = {
                **{k: v for k, v in os.environ.items() if not k.startswith(("TPU_", "XLA_"))},
                "JAX_PLATFORMS": "cpu",
                "PYTHONPATH": str(_ROOT),
                "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
                "JAX_COORDINATOR_PORT": port,
                **_clusters(metadata, worker)[name],
            }
            started[name, worker] = subprocess.Popen(
                [sys.executable, "-m", "tests.training.joining"],
                cwd=_ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
    for (name, worker), process in started.items():
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, f"{name}: {err[-2000:]}"
        found = json.loads(out.splitlines()[-1])
        assert (found["processes"], found["process"], found["devices"]) == (2, worker, 4), name
        assert found["visible"] == ("0" if "chosen" in name else "all"), name
        assert found["description"] == f"process {worker} of 2, 2 of 4 x cpu, mesh data 4"
