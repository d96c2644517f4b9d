"""scripts/study.py as its users start it, for a step of each way."""

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


def _study(photos, workdir, *arguments):
    command = [sys.executable, "scripts/study.py", f"--photos={photos}", f"--workdir={workdir}"]
    command += [f"--validation={photos}", "--seeds=1", "--steps=1", "--base.run.steps=1"]
    command += ["--base.data.batch_size=2", *arguments, "--config.data.batch_size=2"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": "."}
    return subprocess.run(command, cwd=_ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def _results(photos, workdir, *arguments):
    done = _study(photos, workdir, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads((workdir / "results.json").read_text())


@pytest.mark.slow
def test_the_losses_are_compared_and_a_second_call_repeats_what_was_found(photos, tmp_path):
    arguments = ["--way=no_ldr,no_gan", "--way=t=999", "--fidelity=1"]
    found = _results(photos, tmp_path / "run", *arguments)
    assert set(found["means"]) == {
        "input", "original", "plain", "no_ldr,no_gan", "t=999", "plain, fidelity 1",
    }  # fmt: skip
    assert set(found["differences from plain"]) == {
        "no_ldr,no_gan", "t=999", "plain, fidelity 1",
    }  # fmt: skip
    for metrics in found["differences from plain"].values():
        assert set(metrics) == {"psnr", "ssim", "coherence", "coherence_fine", "features"}
        assert np.isfinite([one["value"] for one in metrics.values()]).all()
    assert found["means"]["original"]["psnr"][0] > 70
    assert found["means"]["original"]["features"][0] == 0
    assert "| no_ldr,no_gan |" in (tmp_path / "run" / "results.md").read_text()
    assert Image.open(tmp_path / "run" / "crops.png").width > 5 * 128
    assert _results(photos, tmp_path / "run", *arguments) == found


@pytest.mark.slow
def test_each_strength_of_degradation_is_compared_apart(photos, tmp_path):
    found = _results(
        photos, tmp_path / "run", "--way=t=adaptive", "--by_strength", "--metrics=psnr"
    )
    keys = {"psnr, light", "psnr, mild", "psnr, published"}
    assert set(found["means"]["t=adaptive"]) == keys
    assert set(found["timesteps"]) == {"criterion", "t=adaptive"}
    assert set(found["timesteps"]["t=adaptive"]) == {"light", "mild", "published"}
    by_strength = [found["means"]["input"][f"psnr, {s}"][0] for s in ("light", "published")]
    assert by_strength[0] > by_strength[1]
    written = (tmp_path / "run" / "results.md").read_text()
    assert [line.split()[1] for line in written.splitlines() if "| psnr |" in line] == [
        "light", "mild", "published",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_lattice_of_a_transformer_is_studied_with_settings_and_shifts(photos, tmp_path):
    found = _results(
        photos, tmp_path / "run", "--config=configs/nano_dit.py", "--architecture=nano-dit",
        "--metrics=grid,psnr", "--way=losses.gan=0.05", "--way=model.shifts=True", "--averaged=2",
    )  # fmt: skip
    rows = {"losses.gan=0.05", "model.shifts=True", "plain, mean of 2"}
    assert set(found["differences from plain"]) == rows
    assert set(found["means"]["plain"]) == {"grid", "psnr"}


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--way=no_mse", "has no argument 'no_mse'"),
        ("--way=losses.mes=1", "losses.mes=1 is no setting"),
        ("--fidelity=2", "fidelity must be within -1 .. 1, not 2"),
        ("--averaged=2", "leave shifts at 1 instead of 2"),
        ("--metrics=psnr,sharpness", "--metrics sharpness: expected of psnr, ssim"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(photos, tmp_path, argument, said):
    done = _study(photos, tmp_path / "run", argument)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "run" / "prior").exists()
