"""The subcommands on real files: what they write and print, and their exit codes."""

import json

import numpy as np
import pytest
from PIL import Image

from conversion.convert import convert
from omgsr_jax import cli, converted
from tests.data.photos import synthetic_photo


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(synthetic_photo(72, 88, seed=i)).save(folder / f"photo{i}.png")
    return folder


@pytest.fixture(scope="module")
def base_model(tiny_base, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "base"
    convert(str(tiny_base), out)
    return out


def omgsr(*argv) -> int:
    return cli.main([str(arg) for arg in argv])


def truncate(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def test_degrade_writes_the_same_pairs_for_the_same_seed(photos, tmp_path, capsys):
    outs = [tmp_path / name for name in ("a", "b", "c")]
    for out, seed in zip(outs, (7, 7, 8), strict=True):
        assert omgsr("degrade", photos, "-o", out, "--seed", seed) == 0
    assert f"{outs[0]}: 3 pairs in lr/ and hr/" in capsys.readouterr().out
    a, b, c = ((out / "lr" / "photo1.png").read_bytes() for out in outs)
    assert a == b != c
    assert Image.open(outs[0] / "hr" / "photo1.png").size == (88, 72)
    assert Image.open(outs[0] / "lr" / "photo1.png").size == (22, 18)


def test_degrade_takes_the_1024_preset_a_crop_and_the_size_of_training(photos, tmp_path):
    argv = ["degrade", photos / "photo0.png", "-o", tmp_path / "out", "--preset", 1024]
    assert omgsr(*argv, "--crop", 64, "--resize-back") == 0
    assert Image.open(tmp_path / "out" / "lr" / "photo0.png").size == (64, 64)
    plan = json.loads((tmp_path / "out" / "pairs.jsonl").read_text())["plan"]
    taps = [s["kernel"]["size"] for s in (plan["first"], plan["second"]) if s["kernel"]]
    assert min(taps) >= 11  # the 1024 preset's kernels


def test_degrade_names_what_failed_and_does_the_rest(photos, tmp_path, capsys):
    truncate(photos / "photo1.png")
    assert omgsr("degrade", photos, "-o", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "2 pairs" in printed.out
    assert f"omgsr degrade: {photos}/photo1.png is damaged" in printed.err


def test_degrade_refuses_what_it_cannot_use(photos, tmp_path, capsys):
    for argv, message in (
        ([tmp_path / "nowhere"], "nowhere does not exist; expected a folder of images"),
        ([photos, "--crop", 66], "the crop must be a multiple of the scale 4, not 66"),
        ([photos, "--crop", 512], "photo0.png: 88x72 px is too small for a crop of 512 px"),
    ):
        assert omgsr("degrade", *argv, "-o", tmp_path / "out") == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["degrade", "photos"],
        ["degrade", "photos", "-o", "out", "--seed", "-1"],
        ["degrade", "photos", "-o", "out", "--preset", "256"],
        ["timestep", "--model", "m", "--data", "d", "--images", "0"],
        ["timestep", "--model", "m", "--data", "d", "--criterion", "mse"],
        ["eval", "--hr", "hr"],
        ["eval", "--sr", "sr", "--hr", "hr", "--protocol", "mine"],
        ["evaluate"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        omgsr(*argv)
    assert caught.value.code == 2
    assert "usage: omgsr" in capsys.readouterr().err


@pytest.fixture
def scored(photos, tmp_path):
    """References and two systems: light and heavy noise."""
    folders = {"hr": photos}
    for name, sigma in (("good", 4), ("bad", 20)):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for path in sorted(photos.iterdir()):
            rng = np.random.default_rng(sigma)
            noisy = np.asarray(Image.open(path)) + sigma * rng.standard_normal((72, 88, 3))
            Image.fromarray(np.uint8(noisy.clip(0, 255))).save(folders[name] / path.name)
    return folders


def test_eval_compares_systems_and_writes_a_report(scored, tmp_path, capsys):
    argv = ["eval", "--sr", scored["good"], "--sr", scored["bad"], "--hr", scored["hr"]]
    argv += ["--metrics", "psnr", "ssim", "--out", tmp_path / "report"]
    assert omgsr(*argv) == 0
    printed = capsys.readouterr()
    assert "| | PSNR ↑ | SSIM ↑ |" in printed.out
    assert "| good - bad | PSNR ↑ | +" in printed.out
    assert "too few images" in printed.out  # three
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    means = {name: s["metrics"]["psnr"]["value"] for name, s in summary["systems"].items()}
    assert means["good"] > means["bad"] + 5
    assert (tmp_path / "report" / "report.html").is_file()


def test_eval_fails_for_a_metric_that_was_asked_and_cannot_run(scored, capsys):
    argv = ["eval", "--sr", scored["good"], "--hr", scored["hr"], "--metrics", "psnr", "fid"]
    assert omgsr(*argv) == 1
    printed = capsys.readouterr()
    assert "| PSNR ↑ | FID ↓ |" in printed.out
    assert "omgsr eval: fid was not run: no Inception weights: give --inception" in printed.err


def test_eval_says_what_is_wrong_with_the_folders(scored, tmp_path, capsys):
    (scored["good"] / "photo2.png").unlink()
    for argv, message in (
        ([scored["good"]], "1 reference(s) in"),
        ([tmp_path / "nowhere"], "nowhere is not a folder"),
        ([scored["bad"], "--protocol", "papers"], "it scores 512x512, 3 of bad differ"),
        ([scored["bad"], "--inception", tmp_path / "gone.pth"], "gone.pth does not exist"),
    ):
        assert omgsr("eval", "--hr", scored["hr"], "--sr", *argv) == 1
        assert message in capsys.readouterr().err
    assert (
        omgsr("eval", "--hr", scored["hr"], "--sr", scored["good"], "--subset", "--metrics", "psnr")
        == 0
    )


def test_timestep_searches_and_writes_the_choice(base_model, photos, tmp_path, capsys):
    before = converted.read_card(base_model)
    argv = ["timestep", "--model", base_model, "--data", photos, "--resolution", 64]
    assert omgsr(*argv, "--out", tmp_path / "out", "--write") == 0
    printed = capsys.readouterr()
    content = json.loads((tmp_path / "out" / "timestep.json").read_text())
    found = content["optima"]["snr"]["timestep"]
    assert content["images"] == 3
    assert f"mid-timestep {before.generator.mid_timestep} -> {found}" in printed.out
    assert f"snr     {found:>5}  " in printed.out
    after = converted.read_card(base_model)
    assert after.generator.mid_timestep == found != before.generator.mid_timestep
    assert after.sources == before.sources
    assert not list(base_model.glob(".*"))
    assert omgsr(*argv, "--images", 2) == 0
    assert "2 images;" in capsys.readouterr().out


def test_timestep_refuses_to_change_a_trained_model(tiny_model, photos, capsys):
    card = (tiny_model / converted.CARD).read_bytes()
    assert omgsr("timestep", "--model", tiny_model, "--data", photos, "--write") == 1
    assert "were trained at mid-timestep 195" in capsys.readouterr().err
    assert (tiny_model / converted.CARD).read_bytes() == card


def test_timestep_says_what_is_wrong_with_its_input(base_model, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    truncate(photos / "photo1.png")
    for argv, message in (
        (["--model", photos, "--data", photos], "is not a converted model"),
        (["--model", base_model, "--data", tmp_path / "empty"], "holds no images"),
        (["--model", base_model, "--data", photos, "--resolution", 66], "not a multiple"),
        (["--model", base_model, "--data", photos, "--resolution", 64], "photo1.png is damaged"),
    ):
        assert omgsr("timestep", *argv) == 1
        assert message in capsys.readouterr().err
