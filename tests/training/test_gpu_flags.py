"""XLA flags for GPUs: where there are any, behind what the user has set, and all of them known."""

import importlib.util
import os
import subprocess
import sys

import pytest

from omgsr_jax.training import gpu_flags


def _with(given):
    environment = {} if given is None else {"XLA_FLAGS": given}
    gpu_flags.add_missing(environment)
    return environment["XLA_FLAGS"].split()


def test_what_the_user_has_set_stays():
    assert _with(None) == [f"--{name}={value}" for name, value in gpu_flags.FLAGS.items()]
    mine = "--xla_gpu_enable_latency_hiding_scheduler=false"
    found = _with(f"{mine} --xla_dump_to=/tmp/x")
    assert found[:2] == [mine, "--xla_dump_to=/tmp/x"]
    assert len(found) == 1 + len(gpu_flags.FLAGS)
    assert _with("/etc/xla_flags.txt") == ["/etc/xla_flags.txt"]  # a file stands alone


@pytest.mark.parametrize(
    ("platforms", "plugin", "devices", "expected"),
    [
        ("", True, ["nvidia0", "nvidiactl"], True),
        ("cuda,cpu", True, ["nvidia7"], True),
        ("cpu", True, ["nvidia0"], False),
        ("tpu", True, ["nvidia0"], False),
        ("", False, ["nvidia0"], False),
        ("", True, ["nvidiactl", "null"], False),
    ],
)
def test_they_are_for_gpus_only(platforms, plugin, devices, expected, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if plugin else None)
    for device in devices:
        (tmp_path / device).touch()
    assert gpu_flags.has_gpus({"JAX_PLATFORMS": platforms}, tmp_path) == expected


def _starts(flags):
    program = "import jax; print(jax.jit(lambda x: 2 * x)(21))"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=False
    )
    return done.returncode == 0 and b"42" in done.stdout


def test_the_installed_xla_knows_all_of_them():
    """It ends the process otherwise. Builds without GPUs know the names as well."""
    assert _starts(" ".join(_with(None)))
    assert not _starts("--xla_gpu_no_such_flag=true")
