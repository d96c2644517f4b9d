"""What comes with the package: the model that a name stands for, and the samples."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import omgsr_jax
from omgsr_jax import assets, cli
from tests.stand_in import write_stand_in

NOTICE = "no --model given: taking nano"
SAMPLES = assets.FOLDER / "samples"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory, compile_cache):
    return write_stand_in(tmp_path_factory.mktemp("assets") / "nano", process_size=64)


@pytest.fixture
def nano(stand_in, monkeypatch):
    monkeypatch.setitem(assets.MODELS, "nano", stand_in)
    return stand_in


@pytest.fixture
def photo(tmp_path):
    """16 px of the cat's eye."""
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    with Image.open(assets.sample("chelsea").lr) as image:
        image.crop((16, 20, 32, 36)).save(path)
    return path


def omgsr(*argv) -> int:
    return cli.main([str(arg) for arg in argv])


def test_upscale_takes_nano_when_no_model_is_named_and_says_so_once(nano, photo, tmp_path, capsys):
    assert omgsr("upscale", photo, "-o", tmp_path / "a.png", "--json") == 0
    printed = capsys.readouterr()
    assert printed.err.count(NOTICE) == 1
    result, _ = map(json.loads, printed.out.splitlines())
    assert result["status"] == "done"
    assert omgsr("upscale", photo, "-o", tmp_path / "b.png", "--model", "nano") == 0
    assert NOTICE not in capsys.readouterr().err
    assert omgsr("upscale", photo, "-o", tmp_path / "c.png", "--model", nano) == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b == c


@pytest.mark.slow
def test_load_takes_nano_by_default_and_by_name(nano, photo, tmp_path):
    images = [np.asarray(omgsr_jax.load(*name).upscale(photo)) for name in ((), ("nano",))]
    np.testing.assert_array_equal(*images)
    assert images[0].shape == (64, 64, 3)


def test_a_folder_called_nano_is_meant_by_its_path(nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nano").mkdir()
    assert assets.model_directory("nano") == str(nano)
    assert assets.model_directory("./nano") == "./nano"


def test_every_command_that_takes_a_model_knows_the_name(nano, photo, tmp_path, capsys):
    assert omgsr("info", "nano") == 0
    assert f"{nano}\n" in capsys.readouterr().out
    data = SAMPLES / "hr" / "chelsea.webp"
    assert omgsr("timestep", "--model", "nano", "--data", data, "--resolution", 64) == 0
    assert "1 images; mean square of z_H" in capsys.readouterr().out
    (tmp_path / "hr").mkdir()
    Image.open(photo).resize((64, 64)).save(tmp_path / "hr" / "photo.png")
    argv = ["eval", "--model", "nano", "--lr", photo.parent, "--hr", tmp_path / "hr"]
    assert omgsr(*argv, "--metrics", "psnr") == 0
    assert "**nano**" in capsys.readouterr().out


def test_nano_keeps_its_mid_timestep(nano, capsys):
    card = (nano / "omgsr.json").read_bytes()
    with pytest.raises(SystemExit) as stop:
        omgsr("timestep", "--model", "nano", "--data", SAMPLES / "hr", "--write")
    assert stop.value.code == 2
    assert "nano was trained at its mid-timestep" in capsys.readouterr().err
    assert (nano / "omgsr.json").read_bytes() == card


@pytest.mark.parametrize(
    "argv",
    [
        ["upscale", SAMPLES / "lr" / "coffee.png", "-o", "out.png"],
        ["demo", "-o", "out"],
        ["info", "nano"],
        ["export", "--model", "nano", "--out", "out"],
        ["timestep", "--model", "nano", "--data", SAMPLES / "hr"],
        ["eval", "--model", "nano", "--lr", SAMPLES / "lr", "--hr", SAMPLES / "hr"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_broken_installation_is_named_as_such(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(assets.MODELS, "nano", tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    assert omgsr(*argv) == 1
    error = capsys.readouterr().err
    assert "'nano' is missing from the installed package" in error
    assert "install omgsr-jax again" in error


def test_what_is_no_model_is_said_to_be_none(capsys):
    assert omgsr("info", "nanoo") == 1
    assert "'nanoo' is not a model: expected 'nano', the directory" in capsys.readouterr().err


def test_the_samples_are_small_and_whole():
    files = [path for path in SAMPLES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1.5e6
    named = {getattr(assets.sample(name), side) for name in assets.SAMPLES for side in ("lr", "hr")}
    assert named == {path for path in files if path.name != "README.md"}
    for name in assets.SAMPLES:
        pair = assets.sample(name)
        with Image.open(pair.lr) as lr, Image.open(pair.hr) as hr:
            assert (4 * lr.width, 4 * lr.height) == hr.size


def test_the_samples_are_what_their_readme_makes(tmp_path, monkeypatch):
    """The crops stand for the photographs, whose centres they are."""
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```bash\n(.*?)```", (SAMPLES / "README.md").read_text(), re.DOTALL)
    Path("photos").mkdir()
    for command in block.splitlines():
        program, *args = shlex.split(command)
        photo = Path(args[1])
        with Image.open(assets.sample(photo.stem).hr) as crop:
            crop.save(photo, "png")  # also under the name of a JPEG file, which the seed depends on
        assert program == "omgsr"
        assert omgsr(*args) == 0
    for name in assets.SAMPLES:
        made, stored = Path(f"pairs/lr/{name}.png"), assets.sample(name).lr
        with Image.open(made) as a, Image.open(stored) as b:
            # The same but for what other versions of OpenCV's JPEG and blur may round otherwise.
            difference = np.abs(np.asarray(a, float) - np.asarray(b, float))
        assert difference.mean() < 0.1, name
