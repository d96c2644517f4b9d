"""Sizes, agreement with PyTorch and with the published script, tiles, and what arrays may hold."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
import torch
from PIL import Image

import omgsr_jax
from conversion.parity.arrays import psnr
from conversion.parity.inference import TorchPipeline
from omgsr_jax import converted
from omgsr_jax.errors import InputError
from omgsr_jax.inference.options import Options
from omgsr_jax.inference.pictures import from_array
from omgsr_jax.inference.sizes import Enlargement

from .conftest import photo, restored
from .torch_tiles import torch_tiled


@pytest.fixture(scope="module")
def torch_pipeline(tiny_base, tiny_adapter, model_64) -> TorchPipeline:
    card = converted.read_card(model_64)
    prompt = converted.read_prompt(model_64)
    return TorchPipeline(tiny_base, tiny_adapter, card.generator.mid_timestep, prompt)


def test_untiled_equals_pytorch(upscaler, torch_pipeline):
    x_l = photo(64, 64)[None].astype(np.float32) / 127.5 - 1
    ours = restored(upscaler, x_l)
    assert psnr(ours[0], torch_pipeline.stages(x_l)["decode"][0]) > 90


@pytest.mark.parametrize("published", [False, True])
def test_tiled_equals_pytorch(upscaler, torch_pipeline, published):
    x_l = photo(104, 72)[None].astype(np.float32) / 127.5 - 1
    chosen = upscaler.with_quirks("v2" if published else None)
    (ours,) = restored(chosen, x_l)
    theirs = torch_tiled(torch_pipeline, x_l, 16, 16 / 2 if published else 15 / 2)
    assert psnr(ours, theirs) > 90
    other = torch_tiled(torch_pipeline, x_l, 16, 15 / 2 if published else 16 / 2)
    assert psnr(ours, other) < 80  # so the weights' middle can be told


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(9, 13, 4), (19, 27, 4), (16, 24, 3)], ids=str
)
def test_the_quirks_of_v2_give_its_pixels(upscaler, torch_pipeline, height, width, scale):
    """From file to file, small (enlarged, then reduced) and large enough (sizes floored). At x3 the
    process size becomes 63, floored 56: tiles of 14 latents, which overlap by the half of 16."""
    pixels, size = photo(height, width), 64
    image = Image.fromarray(pixels)
    is_small = min(height, width) < size // scale
    if is_small:
        factor = size // scale / min(width, height)
        image = image.resize((int(factor * width), int(factor * height)))
    image = image.resize((image.width * scale, image.height * scale))
    image = image.resize((image.width // 8 * 8, image.height // 8 * 8), Image.LANCZOS)
    x_l = np.asarray(image, np.float32)[None] / 255 * 2 - 1
    tile = min(16, image.height // 4)
    restored = torch_tiled(torch_pipeline, x_l, tile, tile / 2, overlap=8)
    in_bytes = torch.from_numpy(restored * 0.5 + 0.5).clip(0, 1).mul(255).byte()  # truncates
    expected = Image.fromarray(in_bytes.numpy())
    if is_small:
        expected = expected.resize((width * scale, height * scale))
    ours = upscaler.upscale(pixels, scale=scale, color="none", quirks="v2")
    assert ours.size == expected.size
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(expected))
    # fp32 noise moves a number across a truncation now and then, by one step.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize(
    ("source", "wanted", "expected"),
    [
        ((16, 16), {"scale": 4}, (64, 64)),
        ((7, 5), {"scale": 2.5}, (13, 18)),
        ((1, 1), {"scale": 8}, (8, 8)),
        ((12, 16), {"longest_side": 50}, (50, 38)),
        ((12, 16), {"size": (41, 37)}, (41, 37)),
    ],
)
def test_the_output_has_exactly_the_size_asked_for(upscaler, source, wanted, expected):
    assert upscaler.upscale(photo(*source), **wanted).size == expected


def test_eight_times_is_done_in_two_passes(upscaler):
    options = Options(Enlargement(scale=8))
    (result,) = upscaler.restore([from_array(photo(16, 16))], options)
    assert result.picture.size == (128, 128)
    assert result.work.latent_tiles == 1 + 9


def test_alpha_grey_and_depth_come_out_as_they_went_in(upscaler):
    pixels = np.random.default_rng(0).integers(0, 2**16, (16, 16, 2), np.uint16)
    options = Options(Enlargement(scale=4))
    (result,) = upscaler.restore([from_array(pixels)], options)
    assert result.picture.pixels().shape == (64, 64, 2)
    assert result.picture.pixels().dtype == np.uint16
    assert upscaler.upscale(photo(16, 16, 4)).mode == "RGBA"
    assert upscaler.upscale(photo(16, 16)[..., 0]).mode == "L"


def test_a_batch_gives_what_single_images_give(upscaler):
    batch = [photo(16, 16, seed=seed) for seed in (1, 2)]
    together = upscaler.upscale_batch(batch)
    for image, alone in zip(together, map(upscaler.upscale, batch), strict=True):
        np.testing.assert_array_equal(np.asarray(image), np.asarray(alone))


def test_a_seed_samples_the_same_every_time(upscaler):
    first, again, mode = (np.asarray(upscaler.upscale(photo(), seed=seed)) for seed in (3, 3, None))
    np.testing.assert_array_equal(first, again)
    assert (first != mode).any()


def test_a_pil_image_a_path_and_an_array_are_the_same(upscaler, tmp_path):
    pixels = photo()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    results = [
        np.asarray(upscaler.upscale(image))
        for image in (pixels, Image.fromarray(pixels), tmp_path / "a.png", pixels / 255)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 4, 3), np.nan, np.float32), "NaN"),
        (np.full((4, 4, 3), 200.0), "within"),
        (np.zeros((4, 4, 5), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.int64), "uint8"),
        (np.zeros((3, 20000, 3), np.uint8), "strip"),
    ],
)
def test_unusable_arrays_are_refused(upscaler, array, message):
    with pytest.raises(InputError, match=message):
        upscaler.upscale(array)


def test_the_quirks_of_v1_pad_with_black_and_overlap_by_a_quarter(upscaler, torch_pipeline):
    """Colours are those of the pixels that are kept."""
    pixels = photo(19, 27)
    image = Image.fromarray(pixels).resize((108, 76))
    padded = np.zeros((128, 128, 3), np.uint8)
    padded[:76, :108] = image
    x_l = padded[None].astype(np.float32) / 255 * 2 - 1
    restored = torch_tiled(torch_pipeline, x_l, 16, 8, overlap=4)[:76, :108]
    expected = np.floor(np.clip(restored * 0.5 + 0.5, 0, 1) * 255)
    differences = {}
    for color in ("none", "adain"):
        ours = np.asarray(upscaler.upscale(pixels, color=color, quirks="v1")).astype(int)
        assert ours.shape == (76, 108, 3)
        source = np.asarray(image, float)
        aligned = (expected - expected.mean((0, 1))) / expected.std((0, 1)) * source.std((0, 1))
        aligned = np.clip(aligned + source.mean((0, 1)), 0, 255)
        differences[color] = np.abs(ours - (expected if color == "none" else aligned)).max()
    # Rounding moves a number across a truncation; AdaIN stretches what has moved.
    assert differences["none"] <= 1
    assert differences["adain"] <= 2


@pytest.mark.slow
def test_small_images_get_the_size_that_v1_means(upscaler):
    assert upscaler.upscale(photo(9, 13), quirks="v1", scale=4).size == (52, 36)


@pytest.mark.slow
def test_quirks_may_be_chosen_at_load(upscaler, model_64):
    published = omgsr_jax.load(model_64, quirks="v2")
    expected = upscaler.upscale(photo(19, 27), quirks="v2")
    np.testing.assert_array_equal(published.upscale(photo(19, 27)), expected)
    with pytest.raises(InputError, match="quirks must be"):
        omgsr_jax.load(model_64, quirks="all")


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": 9},
        {"scale": 0.5},
        {"scale": 2, "longest_side": 9},
        {"size": (0, 5)},
        {"color": "rgb"},
        {"seed": -1},
        {"quirks": "all"},
        {"quirks": "v2", "longest_side": 64},
        {"quirks": "v2", "scale": 2.5},
    ],
)
def test_unusable_options_are_refused(upscaler, wrong):
    with pytest.raises(InputError):
        upscaler.upscale(photo(), **wrong)


@pytest.mark.parametrize("said", [None, "wavelet", "none"])
def test_colours_are_by_default_what_the_models_card_says(model_64, tmp_path, said):
    """A card from before cards said so means adain."""
    model = shutil.copytree(model_64, tmp_path / "model")
    card = json.loads((model / converted.CARD).read_text())
    assert card.pop("color") == "adain"
    (model / converted.CARD).write_text(json.dumps(card | ({"color": said} if said else {})))
    assert omgsr_jax.load(model).color == (said or "adain")


def test_colours_are_those_asked_for_and_else_the_models_own(upscaler):
    results = {
        color: np.asarray(upscaler.upscale(photo(16, 16), color=color))
        for color in (None, "adain", "wavelet", "none")
    }
    np.testing.assert_array_equal(results[None], results[upscaler.color])
    assert not np.array_equal(results["adain"], results["wavelet"])
    assert not np.array_equal(results["none"], results["wavelet"])


def test_a_card_with_unknown_colours_is_refused(model_64, tmp_path):
    model = shutil.copytree(model_64, tmp_path / "model")
    card = json.loads((model / converted.CARD).read_text())
    (model / converted.CARD).write_text(json.dumps(card | {"color": "rgb"}))
    with pytest.raises(InputError, match="color must be one of"):
        omgsr_jax.load(model)


def test_a_model_says_what_it_is(upscaler, model_64):
    text = repr(upscaler)
    assert text.startswith(f"<Upscaler {model_64}: VAE of ")
    assert "UNet of " in text
    assert "t_m 195 of 1000, process size 64 px, fp32 on 1 x cpu>" in text
    sizes = [float(size) for size in re.findall(r"([\d.]+) M parameters", text)]
    leaves = jax.tree.leaves(upscaler.programs.weights)
    assert sum(sizes) == pytest.approx(sum(leaf.size for leaf in leaves) / 1e6, rel=0.02)
    assert repr(upscaler.with_quirks("v2")) == text.replace(">", ", with the quirks of v2>")


def test_an_unknown_model_is_refused():
    with pytest.raises(InputError, match="expected 'nano', the directory"):
        omgsr_jax.load("no-such-model")
