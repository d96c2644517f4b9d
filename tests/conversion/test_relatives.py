"""OMGSR's relatives: from their files to restored pictures, and what is refused."""

import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from torch.nn import functional

import omgsr_jax
from conversion.convert import convert
from conversion.export import export
from conversion.parity import random_checkpoints
from conversion.parity.arrays import to_nhwc
from conversion.parity.relatives.checkpoints import WRITERS
from conversion.recipe_table import RECIPES
from conversion.tensor_files import read_pickle
from omgsr_jax import cli, converted
from omgsr_jax.errors import InputError
from omgsr_jax.inference import colour, restore
from omgsr_jax.inference.canvases import Canvas, Stage
from tests.inference.conftest import photo

from . import torch_relatives

PROMPT = "a cat, ,"
BOTH = (0.7, 1.3)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("relatives") / "base"
    random_checkpoints.write_base(folder, random_checkpoints.PRESETS["sd21-tiny"])
    return folder


@pytest.fixture(scope="module")
def files(base) -> dict[str, Path]:
    """The adapters of each recipe, as its training code saves them."""
    paths = {}
    for recipe, (write, name) in WRITERS.items():
        paths[recipe] = base.parent / name
        write(paths[recipe], base)
    return paths


@pytest.fixture(scope="module")
def models(base, files) -> dict[str, Path]:
    """Converted for 64 px, where each program takes seconds."""
    out = {}
    for recipe, file in files.items():
        prompt = PROMPT if recipe == "osediff" else None
        out[recipe] = base.parent / recipe
        convert(
            str(base), out[recipe], recipe=recipe, adapter=str(file), allow_pickle=True,
            process_size=64, prompt=prompt,
        )  # fmt: skip
    return out


def _prompt(model: Path) -> np.ndarray:
    return np.array(converted.read_prompt(model)["context"])


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]


def _coloured(image: torch.Tensor, source: torch.Tensor, method: str) -> np.ndarray:
    """Aligning colours has a test of its own (test_parts.py)."""
    align = jax.jit(colour.align, static_argnums=2)
    return np.asarray(align(to_nhwc(image), to_nhwc(source), method)[0])


def _levels_apart(ours, theirs: np.ndarray) -> int:
    return int(np.abs(np.asarray(ours).astype(int) - np.round(theirs * 255)).max())


@pytest.fixture(scope="module")
def pisa(models) -> omgsr_jax.Upscaler:
    return omgsr_jax.load(models["pisa-sr"], strengths=(1, 1))


def test_hypir_is_its_networks_between_its_own_resizings(base, files, models):
    """A picture of 48 px is enlarged to 64 for the networks, reduced, and coloured at its size."""
    pixels = photo(12, 12)
    relative = torch_relatives.hypir(base, _prompt(models["hypir-sd2"]), files["hypir-sd2"])
    with torch.no_grad():
        source = functional.interpolate(_tensor(pixels), scale_factor=4, mode="bicubic")
        seen = functional.interpolate(source, size=(64, 64), mode="bicubic", antialias=True)
        image = relative.decode(relative.clean(relative.encode(seen * 2 - 1), 200))
        image = functional.interpolate(image, size=(48, 48), mode="bicubic", antialias=True)
    ours = omgsr_jax.load(models["hypir-sd2"]).upscale(pixels, scale=4)
    assert ours.size == (48, 48)
    assert _levels_apart(ours, _coloured(image, source, "wavelet")) <= 1


def test_osediff_is_its_networks_with_all_that_its_file_holds(base, files, models):
    pixels = photo(64, 64)
    relative = torch_relatives.osediff(base, _prompt(models["osediff"]), files["osediff"])
    with torch.no_grad():
        source = _tensor(pixels)
        image = relative.decode(relative.clean(relative.encode(source * 2 - 1), 999))
    ours = omgsr_jax.load(models["osediff"]).upscale(pixels, scale=1)
    expected = _coloured(image.clamp(0, 1), source, "adain")
    assert _levels_apart(ours, expected) <= 1


def test_pisa_mixes_two_predictions_by_strengths_and_compiles_once(base, files, models, pisa):
    pixels = photo(64, 64)
    relative = torch_relatives.pisa(base, _prompt(models["pisa-sr"]), files["pisa-sr"])
    source = _tensor(pixels)
    with torch.no_grad():
        z_l = relative.encode(source * 2 - 1)
        expected = {
            of: _coloured(
                relative.decode(torch_relatives.of_pisa(relative, z_l, of)).clamp(0, 1),
                source,
                "adain",
            )
            for of in ((1, 1), BOTH, (1, 0))
        }
    first = pisa.upscale(pixels, scale=1, strengths=BOTH)
    compiled: list[str] = []

    def listen(event: str, seconds: float, **_: object) -> None:
        compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        sweep = {of: pisa.upscale(pixels, scale=1, strengths=of) for of in expected}
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert [event for event in compiled if "compile" in event] == []
    np.testing.assert_array_equal(sweep[BOTH], first)
    for of, image in sweep.items():
        assert _levels_apart(image, expected[of]) <= 1
    assert _levels_apart(sweep[BOTH], expected[1, 1]) > 1  # so that strengths can be told
    merged = omgsr_jax.load(models["pisa-sr"]).upscale(pixels, scale=1)
    assert np.abs(np.asarray(merged).astype(int) - np.asarray(sweep[1, 1])).max() <= 1


def test_strengths_are_for_models_that_have_them(models, pisa):
    with pytest.raises(InputError, match="loaded without any"):
        omgsr_jax.load(models["pisa-sr"]).upscale(photo(), strengths=(1, 0.5))
    with pytest.raises(InputError, match="this model is of another recipe"):
        omgsr_jax.load(models["osediff"], strengths=(1, 1))
    with pytest.raises(InputError, match="two numbers within 0"):
        pisa.upscale(photo(), strengths=(1, float("nan")))


SIZES = [Stage((12, 17), (64, 91), (48, 68)), Stage((20, 16), (80, 64), (80, 64))]


def _in_torch(pixels: np.ndarray, stage: Stage) -> tuple[torch.Tensor, torch.Tensor]:
    source = functional.interpolate(_tensor(pixels), size=stage.target, mode="bicubic")
    process, sides = stage.process, [-side % 8 for side in stage.process]
    seen = functional.interpolate(source, size=process, mode="bicubic", antialias=True) * 2 - 1
    return source, functional.pad(seen, (0, sides[1], 0, sides[0])) * 0.5 + 0.5


@pytest.mark.parametrize("shared", [False, True])
def test_hypirs_enlargement_padding_and_reduction_are_those_of_pytorch(shared):
    pictures = [photo(*stage.source, seed=i) for i, stage in enumerate(SIZES)]
    results = [photo(*stage.process, seed=i + 5) for i, stage in enumerate(SIZES)]
    largest = Stage((20, 17), (80, 91), (80, 68))
    for i, stage in enumerate(SIZES):
        canvas = Canvas(largest if shared else stage, (8, 8), 8, 8, shared)
        source, seen, found = _enlarged_and_reduced(
            canvas,
            np.array([stage]) if shared else None,
            _on_canvas(pictures[i], canvas.extent.source),
            _on_canvas(results[i], canvas.padded),
        )
        expected, padded = _in_torch(pictures[i], stage)
        height, width = stage.target
        np.testing.assert_allclose(source[:, :height, :width], to_nhwc(expected), atol=2e-6)
        rows, columns = padded.shape[2:]
        np.testing.assert_allclose(seen[:, :rows, :columns], to_nhwc(padded), atol=2e-6)
        assert np.all(np.asarray(seen)[:, rows:] == 0.5)
        reduced = functional.interpolate(
            _tensor(results[i]), size=stage.target, mode="bicubic", antialias=True
        )
        wanted = _coloured(reduced, expected, "wavelet")
        np.testing.assert_allclose(found[0, :height, :width], wanted, atol=3e-6)


@functools.partial(jax.jit, static_argnums=0)
def _enlarged_and_reduced(canvas: Canvas, sizes, images, image):
    stage, how = Stage.of(canvas, sizes), restore.Decoding(canvas, 1, "wavelet", resizing="hypir")
    source, seen = restore._twice_enlarged(images, canvas, stage)
    return source, seen, restore._reduced_and_coloured(image, source, stage, how, "wavelet")


def _on_canvas(pixels: np.ndarray, size: tuple[int, int]) -> jax.Array:
    values = np.full((1, *size, 3), 0.9, np.float32)
    values[0, : pixels.shape[0], : pixels.shape[1]] = pixels / np.float32(255)
    return jax.numpy.asarray(values)


@pytest.fixture
def fails(base, tmp_path, capsys):
    """The sentence of a conversion that is refused."""

    def run(recipe: str, file: Path, *more: str, on: Path = base) -> str:
        argv = ["convert", "--adapter", file, "--base", on, "--out", tmp_path / "out", *more]
        argv += ["--recipe", recipe] if recipe else []
        assert cli.main([*map(str, argv)]) == 1
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    return run


def test_files_of_another_family_or_rank_are_refused_with_the_name_of_the_right_one(
    fails, files, tiny_adapter, tmp_path
):
    allowed = ("--allow-pickle", "--prompt", "")
    for recipe, other in (("hypir-sd2", "osediff"), ("osediff", "pisa-sr"), ("pisa-sr", "osediff")):
        assert f"say --recipe {other}" in fails(recipe, files[other], *allowed)
    assert "say --recipe omgsr-s-512-v1 or" in fails("hypir-sd2", tiny_adapter)
    WRITERS["hypir-sd2"][0](tmp_path / "small.pth", files["osediff"].parent / "base", rank=4)
    said = fails("hypir-sd2", tmp_path / "small.pth", "--allow-pickle")
    assert "have the ranks 0 (encoder) and 4 (backbone), those of hypir-sd2 have 0 and 256" in said


def test_another_base_is_refused_before_its_weights_are_read(fails, files, tiny_base):
    said = fails("pisa-sr", files["pisa-sr"], "--allow-pickle", on=tiny_base)
    assert "pisa-sr is on SD2.1-base, and" in said
    assert "is SD-Turbo" in said


def test_pickles_are_opened_only_where_that_is_allowed(fails, files):
    said = fails("hypir-sd2", files["hypir-sd2"])
    assert "HYPIR_sd2.pth is a pickle, and pickles can run any code" in said


def test_what_a_recipe_leaves_to_the_user_is_asked_for(fails, files, base, tmp_path):
    said = fails("osediff", files["osediff"], "--allow-pickle")
    assert "osediff has no prompt of its own: say --prompt" in said
    with pytest.raises(InputError, match="fetch https://huggingface"):
        convert(str(base), tmp_path / "out", recipe="hypir-sd2")


def _without(*path: str):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


_FACTOR = "mid_block.attentions.0.proj_in.lora_A.default_others_pix.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("lora_rank_unet_sem"), "holds the adapters of no recipe"),
        (_without("state_dict_unet"), "state_dict_unet is None, expected an object"),
        (_without("state_dict_unet", _FACTOR), "is damaged: it lacks mid_block.attentions.0.proj_"),
        (lambda c: c["unet_lora_others_modules_sem"].append("x"), "is damaged: x is listed"),
        (lambda c: c["state_dict_unet"].update(x=1), "holds what is not known here: x"),
        (lambda c: c.update(lora_rank_unet_sem="4"), "is '4', expected a whole number"),
        (
            lambda c: c["state_dict_unet"].update({_FACTOR: torch.zeros(4, 7)}),
            "do not fit this base",
        ),
        (
            lambda c: c["state_dict_unet"].update({_FACTOR: torch.full((4, 64), torch.nan)}),
            "has values that are not finite",
        ),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(fails, files, change, message, tmp_path):
    content = read_pickle(files["pisa-sr"])
    change(content)
    torch.save(content, tmp_path / "pisa_sr.pkl")
    said = fails("pisa-sr" if "no recipe" not in message else "", tmp_path / "pisa_sr.pkl",
                 "--allow-pickle")  # fmt: skip
    assert message in said
    assert "pisa_sr.pkl" in said


def test_a_family_is_known_by_its_file_and_its_licence_is_said(base, files, tmp_path, capsys):
    argv = ["convert", "--base", base, "--adapter", files["hypir-sd2"], "--allow-pickle", "--quiet"]
    assert cli.main([*map(str, argv), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "recipe hypir-sd2: the only one with adapters stored so" in printed.err
    assert "of the adapters hypir-non-commercial https://github.com/XPixelGroup" in printed.err
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: other\nlicense_name: openrail++ and hypir-non-commercial" in card
    assert "That of the adapters: hypir-non-commercial (https://" in card


def test_cards_say_what_recipes_say(models):
    for recipe in RECIPES:
        if recipe.name in models:
            card = converted.read_card(models[recipe.name])
            assert card.generator.mid_timestep == recipe.mid_timestep
            assert (card.color, card.resizing) == (recipe.color, recipe.resizing)
            tiles = [int(share * 64) for share in recipe.tiles or ()]
            assert [card.tile_size, card.tile_overlap] == (tiles or [None, None])
    residual = converted.read_card(models["pisa-sr"]).generator.process
    assert converted.kind_name(residual) == "residual"


def test_an_export_is_converted_back_to_the_same_model(models, tmp_path):
    export(models["pisa-sr"], tmp_path / "exported")
    convert(str(tmp_path / "exported"), tmp_path / "again", adapter=str(tmp_path / "exported"))
    before, after = (converted.read_card(path) for path in (models["pisa-sr"], tmp_path / "again"))
    assert before.generator == after.generator
    assert (before.tile_size, before.origin) == (after.tile_size, after.origin)
    weights = [converted.by_name_on_host(path) for path in (models["pisa-sr"], tmp_path / "again")]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_card_of_an_earlier_version_names_no_tiles_and_is_read(models, tmp_path):
    shutil.copytree(models["pisa-sr"], tmp_path / "old")
    path = tmp_path / "old" / "omgsr.json"
    content = json.loads(path.read_text())
    for name in ("tile_size", "tile_overlap", "resizing"):
        del content[name]
    del content["origin"]["adapter_license"], content["origin"]["adapter_license_link"]
    path.write_text(json.dumps(content))
    card = converted.read_card(tmp_path / "old")
    assert (card.tile_size, card.resizing, card.origin.adapter_license) == (None, "omgsr", "")
