"""Full-size conversion, by hand: needs 12 GB of disk and a few minutes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conversion.parity import random_checkpoints
from omgsr_jax.cli.info import describe


@pytest.mark.slow
def test_converting_sd_turbo_to_bf16_stays_below_6_gb(tmp_path):
    preset = random_checkpoints.PRESETS["sd-turbo"]
    random_checkpoints.write_base(tmp_path / "base", preset)
    random_checkpoints.write_adapters(tmp_path / "adapter", tmp_path / "base", preset)
    command = (
        f"convert --base {tmp_path / 'base'} --adapter {tmp_path / 'adapter'} "
        f"--out {tmp_path / 'out'} --precision bf16"
    )
    program = (
        "import resource; from omgsr_jax.cli import main; "
        f"code = main({command.split()!r}); "
        "print('peak kB', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); exit(code)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    print(run.stdout)
    peak_gb = int(run.stdout.split("peak kB")[1]) * 1024 / 1e9
    assert peak_gb < 6

    shown = describe(tmp_path / "out")
    assert shown["backbone"] == "unet, 865.91 M parameters"
    assert shown["VAE"] == "4 channels, 83.65 M parameters"
    assert "on 194 layers" in shown["backbone LoRA"]
    assert "on 31 layers" in shown["encoder LoRA"]
