"""scripts/grid_study.py as its users start it, for a step of each way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        coarse = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
        coarse.resize((160, 160), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.mark.slow
def test_the_study_compares_every_way_and_repeats_what_it_found(photos, tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, "scripts/grid_study.py", f"--photos={photos}"]
    command += [f"--validation={photos}", f"--workdir={workdir}", "--seeds=1", "--steps=1"]
    command += ["--base.run.steps=1", "--base.data.batch_size=2", "--config.data.batch_size=2"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": "."}

    def results():
        subprocess.run(command, cwd=_ROOT, env=environment, check=True)
        return json.loads((workdir / "results.json").read_text())

    found = results()
    rows = {"latents", "frequencies", "shifts", "all three", "plain, mean of 2", "plain, mean of 4"}
    assert set(found["means"]) == {"input", "original", "plain", *rows}
    assert set(found["differences from plain"]) == rows
    for metrics in found["differences from plain"].values():
        assert np.isfinite([one["value"] for one in metrics.values()]).all()
    assert found["means"]["original"]["psnr"][0] > 70
    assert Image.open(workdir / "crops.png").width > 9 * 256
    assert results() == found
