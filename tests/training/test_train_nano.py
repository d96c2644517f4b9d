"""scripts/train_nano.py as its users start it: stopped midway, resumed, and its model used."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import omgsr_jax

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def photos(tmp_path):
    """Two photographs, of which one tile is flat."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        coarse = Image.fromarray(rng.integers(0, 256, (60, 90, 3), np.uint8))
        photo = np.array(coarse.resize((600, 300), Image.Resampling.BICUBIC))
        if i == 0:
            photo[:, :260] = 128
        Image.fromarray(photo).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def start(photos, tmp_path):
    def begin(cooldown=1):
        command = [sys.executable, "scripts/train_nano.py", f"--photos={photos}"]
        command += [f"--validation={photos}", f"--workdir={tmp_path / 'run'}"]
        command += ["--base.run.steps=3", "--base.data.batch_size=2"]
        for stage in ("config", "detail"):
            command += [f"--{stage}.run.steps=2", f"--{stage}.data.batch_size=2"]
            command += [f"--{stage}.validation.images=2", f"--{stage}.validation.shown=1"]
            command += [f"--{stage}.run.cooldown={cooldown}"]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": "."}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
        )

    return begin


@pytest.mark.slow
def test_nano_trains_in_slices_to_a_model_that_upscales(start, photos, tmp_path):
    process = start(cooldown=3)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "run.cooldown is 3" in errors
    workdir = tmp_path / "run"
    assert not (workdir / "tiles").exists(), "before anything is done"

    process = start()
    while not (workdir / "prior" / "config.json").exists():
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.2)
    time.sleep(5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=600)
    assert process.returncode in (3, -signal.SIGTERM)  # by the loop, or before it had begun

    process = start()
    _, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors[-2000:]
    # At full size each photograph gives two tiles, one of them flat; halves are too small for one.
    assert len(list((workdir / "tiles").iterdir())) == 3
    t_m = json.loads((workdir / "base" / "omgsr.json").read_text())["generator"]["mid_timestep"]
    found = json.loads((workdir / "timestep" / "timestep.json").read_text())
    assert t_m == found["optima"]["snr"]["timestep"]

    upscaler = omgsr_jax.load(workdir / "model")
    assert (upscaler.process_size, upscaler.color) == (512, "wavelet")
    assert np.asarray(upscaler.upscale(photos / "0.png", scale=1)).shape == (300, 600, 3)

    process = start()
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "is there already" in errors
