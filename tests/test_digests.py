"""What is read from a converted model is what was written, and what it computes is finite."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import omgsr_jax
from omgsr_jax import assets, cli, converted, digests
from omgsr_jax.errors import InputError
from omgsr_jax.inference.programs import Programs

from .stand_in import write_stand_in


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_stand_in(tmp_path_factory.mktemp("models") / "whole", process_size=64)


@pytest.fixture
def model(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def _flip(path: Path, count: int) -> None:
    data = bytearray(path.read_bytes())
    for i in np.linspace(0, len(data) - 1, count).astype(int):
        data[i] ^= 0x55
    path.write_bytes(data)


def test_200_flipped_bytes_in_any_file_of_weights_are_an_error_that_names_it(model, whole):
    for file in sorted(path for path in (model / "params").rglob("*") if path.is_file()):
        _flip(file, 200)
        with pytest.raises(InputError, match=f"{file.name} is damaged: its sha256"):
            converted.read(model)
        shutil.copyfile(whole / file.relative_to(model), file)
    converted.read(model)


def test_large_files_are_compared_while_they_are_read(model, monkeypatch):
    """The damage is what is reported, whatever reading made of it."""
    monkeypatch.setattr(digests, "_SMALL_BYTES", 1)
    monkeypatch.setattr(digests, "_WORTH_MENTIONING_BYTES", 1)
    told = []
    converted.read(model, notify=lambda what, seconds: told.append((what, seconds)))
    assert [what for what, _ in told] == ["checking 0.0 GB of weights"] * 2
    assert told[0][1] is None
    assert told[1][1] > 0
    (manifest,) = model.glob("params/manifest.ocdbt")
    _flip(manifest, 200)
    with pytest.raises(InputError, match=r"manifest\.ocdbt is damaged: its sha256"):
        converted.read(model)


def test_a_part_of_a_model_is_compared_as_well(model):
    (largest, *_) = sorted(model.glob("params/**/d/*"), key=lambda path: -path.stat().st_size)
    _flip(largest, 1)
    for read in (converted.read_vae, converted.read_prompt, converted.by_name_on_host):
        with pytest.raises(InputError, match=f"{largest.name} is damaged"):
            read(model)


def test_the_digest_is_of_the_whole_model(model, capsys):
    assert cli.main(["info", str(model)]) == 0
    before = converted.digest(model)
    assert f"digest:         {before}" in capsys.readouterr().out
    card = json.loads((model / converted.CARD).read_text())
    (model / converted.CARD).write_text(json.dumps(card))
    assert converted.digest(model) == before, "it is of what the card says, not of how"
    (model / converted.CARD).write_text(json.dumps(card | {"process_size": 72}))
    assert converted.digest(model) != before


def test_another_mid_timestep_leaves_the_digests_of_the_weights(model):
    before = json.loads((model / converted.CARD).read_text())
    converted.set_mid_timestep(model, 321)
    after = json.loads((model / converted.CARD).read_text())
    assert after["files"] == before["files"]
    assert converted.read_card(model).generator.mid_timestep == 321
    converted.read(model)


def test_a_model_from_before_digests_loads_and_info_says_so(model, whole, capsys):
    card = json.loads((model / converted.CARD).read_text())
    del card["files"]
    (model / converted.CARD).write_text(json.dumps(card))
    old, new = converted.by_name_on_host(model), converted.by_name_on_host(whole)
    assert all(np.array_equal(old[name], new[name]) for name in new)
    assert cli.main(["info", str(model)]) == 0
    assert "none: an earlier version wrote this model" in capsys.readouterr().out
    converted.set_mid_timestep(model, 321)  # nothing is claimed about weights that nobody compared
    assert converted.digest(model) is None


def test_nano_is_covered_by_its_digests():
    nano = assets.FOLDER / "nano"
    card = json.loads((nano / converted.CARD).read_text())
    files = digests.of_files(nano / "params")
    assert card["files"] == {f"params/{name}": one for name, one in files.items()}


def test_what_could_not_be_read_again_is_not_written(whole, tmp_path):
    card = converted.read_card(whole)
    wrong = converted.ModelCard(card.generator, 10**9, "", {}, card.color)
    with pytest.raises(InputError, match="cannot be written: process_size is 1000000000"):
        converted.write(tmp_path / "out", wrong, converted.by_name_on_host(whole))
    assert not list(tmp_path.iterdir())


# What is not finite.

# A weight whose NaN shows first in the named stage.
_FIRST_IN = {
    "encode": "vae.encoder.conv_in.kernel",
    "predict": "backbone.conv_in.kernel",
    "decode": "vae.decoder.conv_out.bias",
}


def _with_value(whole: Path, out: Path, name: str, value: float) -> Path:
    weights = converted.by_name_on_host(whole)
    weights[name] = weights[name].copy()
    weights[name].flat[0] = value
    converted.write(out, converted.read_card(whole), weights)
    return out


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    paths = [tmp_path / "photos" / f"{name}.png" for name in ("a", "b", "c")]
    paths[0].parent.mkdir()
    for i, path in enumerate(paths):
        Image.fromarray(np.full((16, 16, 3), 60 * i, np.uint8)).save(path)
    return paths


@pytest.mark.parametrize(
    ("stage", "precision", "value"),
    [
        ("encode", "fp32", np.nan),
        pytest.param("predict", "int8", np.nan, marks=pytest.mark.slow),  # the rest in bf16
        ("decode", "fp32", np.inf),  # which clipping would make white
    ],
)
def test_what_is_not_finite_names_the_image_and_the_stage(
    whole, photos, tmp_path, compile_cache, stage, precision, value
):
    model = _with_value(whole, tmp_path / "model", _FIRST_IN[stage], value)
    upscaler = omgsr_jax.load(model, precision=precision)
    with pytest.raises(InputError, match=f"a.png: what the model's {stage} stage gives is not"):
        upscaler.upscale(photos[0])
    if stage == "encode":
        with pytest.raises(InputError, match=f"image 1 of 2: what the model's {stage} stage"):
            upscaler.upscale_batch([np.asarray(Image.open(path)) for path in photos[:2]])


def _not_finite(run, *, call, stage):
    """`Programs.run` whose n-th call says that a stage's result is not finite."""
    calls = []

    def overflowing(self, *given):
        calls.append(given)
        images, finite = run(self, *given)
        finite[:, stage] &= len(calls) != call
        return images, finite

    return overflowing


def test_a_folder_goes_on_behind_an_image_that_is_not_finite(
    whole, photos, tmp_path, compile_cache, monkeypatch, capsys
):
    """Only the second image makes the backbone overflow."""
    monkeypatch.setattr(Programs, "run", _not_finite(Programs.run, call=2, stage=1))
    out = tmp_path / "out"
    argv = ["upscale", str(photos[0].parent), "-o", str(out), "--model", str(whole)]
    assert cli.main(argv) == 1
    printed = capsys.readouterr().err
    assert f"failed: {photos[1]}: what the model's predict stage gives is not finite" in printed
    assert "2 done, 1 failed" in printed.replace("1 failed, 2 done", "2 done, 1 failed")
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "c.png"]


@pytest.mark.slow
def test_the_second_of_two_passes_names_the_image_too(whole, photos, compile_cache, monkeypatch):
    """8x of the second image alone takes two passes."""
    upscaler = omgsr_jax.load(whole)
    monkeypatch.setattr(Programs, "run", _not_finite(Programs.run, call=3, stage=2))
    wide = np.zeros((8, 8, 3), np.uint8)
    near = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(InputError, match="image 2 of 2: what the model's decode stage"):
        upscaler.upscale_batch([near, wide], longest_side=64)
