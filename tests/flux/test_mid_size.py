"""FLUX and Z-Image of 1.5 G parameters at their widths: memory, divided weights. 10 GB, minutes.

pytest -m slow tests/flux/test_mid_size.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import relative_error

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

_WRITE = """
import sys
from pathlib import Path
from conversion.parity import random_checkpoints
preset = random_checkpoints.PRESETS[sys.argv[1]]
base, adapter = map(Path, sys.argv[2:])
random_checkpoints.write_base(base, preset, dtype="bfloat16")
random_checkpoints.write_adapters(adapter, base, preset)
"""
_PEAK = """
def peak():  # of this program alone: getrusage would count what the process held that started it
    status = open("/proc/self/status").read()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
"""
_CONVERT = f"""{_PEAK}
import json, sys
from conversion.convert import convert
base, adapter, out = sys.argv[1:]
convert(base, out, adapter=adapter, mid_timestep=244, process_size=64, prompt="")
print(json.dumps(dict(peak=peak())))
"""
_RESTORE = f"""{_PEAK}
import json, sys, time
import jax, numpy as np
import omgsr_jax
from tests.inference.conftest import restored
model, shards, source, out = sys.argv[1:]
devices = jax.devices()[: int(shards)]
started = time.time()
upscaler = omgsr_jax.load(model, precision="fp32", devices=devices, shards=int(shards))
loaded = time.time() - started
(image,) = restored(upscaler, np.load(source)[None])
np.save(out, image)
leaves = jax.tree.leaves(upscaler.programs.weights)
held = [leaf.addressable_shards[0].data.nbytes for leaf in leaves]
print(json.dumps(dict(peak=peak(), device=sum(held), load_seconds=loaded)))
"""


def _run(script: str, *args: object, devices: int = 1) -> dict:
    # Simulated devices take turns on few cores: XLA must not take the slow ones for dead.
    flags = (
        f"--xla_force_host_platform_device_count={devices} "
        "--xla_cpu_collective_call_terminate_timeout_seconds=1200 "
        "--xla_cpu_collective_timeout_seconds=1200"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        cwd=ROOT,
        env={
            **os.environ,
            "XLA_FLAGS": flags,
            "JAX_PLATFORMS": "cpu",
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        },
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = outcome.stdout.splitlines()
    return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}


# A preset, between how many devices its heads can be divided, and how much is left on each.
_PRESETS = [("flux-mid", 8, 0.2), ("z-image-mid", 2, 0.6)]


@pytest.fixture(scope="module", params=_PRESETS, ids=lambda param: param[0])
def converted(request, tmp_path_factory) -> tuple[Path, dict, int, tuple[int, float]]:
    preset, *division = request.param
    folder = tmp_path_factory.mktemp(preset)
    base, adapter, out = (folder / name for name in ("base", "adapter", "model"))
    _run(_WRITE, preset, base, adapter)
    largest = max(path.stat().st_size for path in base.rglob("*.safetensors"))
    return out, _run(_CONVERT, base, adapter, out), largest, tuple(division)


def test_conversion_takes_the_largest_shard_and_two_gigabytes(converted):
    _, used, largest, _ = converted
    print(f"largest shard {largest / 1e9:.2f} GB, peak {used['peak'] / 1e9:.2f} GB")
    assert used["peak"] <= largest + 2e9


def test_divided_weights_give_the_same_image(converted, tmp_path):
    model, _, _, (most, share) = converted
    np.save(tmp_path / "in.npy", np.random.default_rng(0).uniform(-1, 1, (64, 80, 3)).astype("f4"))
    held = {}
    for shards in (1, most):
        held[shards] = _run(
            _RESTORE, model, shards, tmp_path / "in.npy", tmp_path / f"{shards}.npy", devices=most
        )
        print(shards, held[shards])
    one, several = (np.load(tmp_path / f"{shards}.npy") for shards in (1, most))
    print(f"relative error {relative_error(several, one):.1e}")
    assert held[most]["device"] <= share * held[1]["device"]
    assert relative_error(several, one) <= 1e-5
