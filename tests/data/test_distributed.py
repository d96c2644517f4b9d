"""Real JAX processes side by side, as on a pod."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omgsr_jax.data import DataConfig, make_pipeline, to_device
from omgsr_jax.data.degradation_jax import degrade_batch
from tests.data.photos import synthetic_photo

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.mark.slow
@pytest.mark.parametrize("degrade_on", ["host", "device"])
def test_two_jax_processes_hold_the_batches_of_one(tmp_path, degrade_on):
    for i in range(12):
        Image.fromarray(synthetic_photo(90, 80, i)).save(tmp_path / f"{i}.png")
    config = DataConfig(
        (str(tmp_path),),
        resolution=64,
        batch_size=4,
        degrade_on=degrade_on,
        workers=0,
    )
    batches = iter(to_device(make_pipeline(config, 5, process_index=0, process_count=1)))
    parts = run_two_processes(tmp_path, degrade_on)
    for step in range(3):
        batch = next(batches)
        if degrade_on == "device":
            batch["lr"] = degrade_batch(batch["hr"], batch["plan"], config.degradation_config)
        expected = dict(zip(batch["id"], np.asarray(batch["lr"]).astype(float), strict=True))
        names = [name for part in parts for name in part[f"id{step}"]]
        assert sorted(names) == sorted(expected)
        for name, lr in zip(names, np.concatenate([p[f"lr{step}"] for p in parts]), strict=True):
            if degrade_on == "host":
                np.testing.assert_array_equal(lr, expected[name])
            # Programs for one image and for four may round a JPEG coefficient differently.
            assert np.abs(lr - expected[name]).mean() < 0.5


def run_two_processes(folder, degrade_on):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",  # four devices in all
    }
    outputs = [folder / f"part{index}.npz" for index in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, WORKER, port, str(index), "2", folder, degrade_on, output],
            env=environment,
        )
        for index, output in enumerate(outputs)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    return [np.load(output) for output in outputs]
