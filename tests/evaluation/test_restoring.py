"""`omgsr eval --model`: inputs are restored to the size of their references, then scored."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from omgsr_jax import cli
from omgsr_jax.evaluation import restoring
from tests.evaluation.images import photograph, save


@pytest.fixture
def benchmark(tmp_path):
    """Two pairs at 4x and one at 2x."""
    hr = {f"{i}.png": photograph(i, 64, 64) for i in range(3)}
    lr = {
        name: np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
        for (name, image), side in zip(hr.items(), (16, 16, 32), strict=True)
    }
    return save(tmp_path / "lr", lr), save(tmp_path / "hr", hr)


def test_a_model_is_scored_on_what_it_makes_of_the_inputs(model_64, upscaler, benchmark, tmp_path):
    lr, hr = benchmark
    out, copy = tmp_path / "report", shutil.copytree(hr, tmp_path / "copy")
    argv = ["eval", "--model", model_64, "--sr", copy, "--lr", lr, "--hr", hr, "--out", out]
    assert cli.main([*map(str, argv), "--metrics", "psnr"]) == 0
    systems = set(json.loads((out / "summary.json").read_text())["systems"])
    assert systems == {"copy", model_64.name}
    for name, side, scale in (("0", 16, 4), ("2", 32, 2)):
        upscaler.steps((side, side), scale=scale)  # on a canvas of its own, whatever came before
        made = np.asarray(Image.open(out / "sr" / model_64.name / f"{name}.png"))
        expected = np.asarray(upscaler.upscale(lr / f"{name}.png", scale=scale))
        np.testing.assert_array_equal(made, expected)


def test_models_of_one_name_get_a_folder_each(benchmark, tmp_path, monkeypatch):
    lr, hr = benchmark

    def restore(model, lr_dir, hr_dir, out, **_):
        images = {path.name: np.asarray(Image.open(path)) for path in hr.iterdir()}
        shade = 1 if model.startswith("a") else 20
        save(out, {name: image // 2 + shade for name, image in images.items()})

    monkeypatch.setattr(restoring, "restore_inputs", restore)
    out = tmp_path / "report"
    argv = ["eval", "--model", "a/x", "--model", "b/x", "--lr", str(lr), "--out", str(out)]
    assert cli.main([*argv, "--hr", str(hr), "--metrics", "psnr"]) == 0
    systems = json.loads((out / "summary.json").read_text())["systems"]
    assert sorted(path.name for path in (out / "sr").iterdir()) == ["x", "x-2"]
    a, b = (systems[name]["metrics"]["psnr"]["value"] for name in ("a/x", "b/x"))
    assert a != b


def test_an_input_that_cannot_be_restored_ends_the_evaluation(
    model_64, compile_cache, benchmark, tmp_path, capsys
):
    lr, hr = benchmark
    data = (lr / "1.png").read_bytes()
    (lr / "1.png").write_bytes(data[: len(data) // 2])
    out = tmp_path / "report"
    argv = ["eval", "--model", model_64, "--lr", lr, "--hr", hr, "--out", out]
    assert cli.main([*map(str, argv), "--metrics", "psnr"]) == 1
    assert f"{lr}/1.png is damaged: image file is truncated" in capsys.readouterr().err
    assert not (out / "summary.json").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["eval", "--hr", "x"], "give outputs with --sr, or what makes them with --model"),
        (["eval", "--hr", "x", "--model", "m"], "--model needs inputs"),
        (
            ["eval", "--hr", "x", "--sr", "y", "--metrics", "pnsr"],
            "unknown metrics pnsr; there are",
        ),
        (["eval", "--hr", "x", "--sr", "y", "--benchmark", "Set5"], "there is no benchmark 'Set5'"),
        (["eval", "--hr", "x", "--sr", "y", "--sr", "z/../y"], "is given twice"),
        (["eval", "--hr", "x", "--lr", "y", "--model", "m", "--model", "./m"], "is given twice"),
        (
            ["convert", "--perceptual", "x", "--out", "y", "--prompt", "p", "--mid-timestep", "9"],
            "--prompt, --mid-timestep: of a model, not of --perceptual",
        ),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
