"""Tile geometry, weights, sizes and colour, each against a reference written here; memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional

from omgsr_jax.architectures import ARCHITECTURES
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR
from omgsr_jax.inference import colour, layout, resizing
from omgsr_jax.inference.canvases import Canvas, Stage, merged
from omgsr_jax.inference.memory import Budget, available_on_host
from omgsr_jax.inference.pictures import resize
from omgsr_jax.inference.published import FirstScript, PublishedTiling, Script
from omgsr_jax.inference.resizing import resized
from omgsr_jax.inference.sizes import Enlargement, process_size, stages
from omgsr_jax.inference.tiling import Tiles, Tiling, blend_weights, in_tiles
from omgsr_jax.inference.upscaler import Upscaler

from .conftest import photo


@pytest.mark.parametrize("size", [(64, 65), (100, 131), (200, 64), (16, 16)])
@pytest.mark.parametrize("at_once", [1, 3])
def test_tiles_of_one_image_are_blended_to_that_image(size, at_once):
    z = np.random.default_rng(0).normal(size=(2, *size, 4)).astype(np.float32)
    seen = []

    def unchanged(tiles):
        seen.append(tiles.shape)
        return tiles

    blended = in_tiles(unchanged, z, Tiles((16, 16), at_once=at_once))
    np.testing.assert_allclose(blended, z, atol=2e-6)
    assert seen[0][1:] == (16, 16, 4)


def test_tiles_are_weighed_as_the_paper_says():
    """Each gives its own constant; where they lie and how they are weighed is written out here."""
    weights = blend_weights((16, 16))
    corners = [(top, left) for left in (0, 8, 14) for top in (0, 8, 16, 24)]
    total, heaviness = np.zeros((40, 30)), np.zeros((40, 30))
    for top, left in corners:
        total[top : top + 16, left : left + 16] += weights * (top + 100 * left)
        heaviness[top : top + 16, left : left + 16] += weights
    z = np.zeros((1, 40, 30, 1), np.float32)
    z[0, ..., 0] = np.arange(40)[:, None] + 100 * np.arange(30)
    found = in_tiles(lambda tiles: tiles[:, :1, :1] + 0 * tiles, z, Tiles((16, 16)))
    np.testing.assert_allclose(found[0, ..., 0], total / heaviness, rtol=1e-5)


def test_latents_of_several_sizes_are_tiled_each_as_it_is():
    sizes = [(40, 30), (16, 48), (33, 16)]
    alone = [np.random.default_rng(i).normal(size=(*s, 2)) for i, s in enumerate(sizes)]
    together = np.zeros((3, 40, 48, 2), np.float32)
    for z, (h, w), image in zip(together, sizes, alone, strict=True):
        z[:h, :w] = image
    tiles, limits = Tiles((16, 16), at_once=2), jnp.array(sizes)
    sums = tiles.begun(together)
    for _ in range(max(map(tiles.turns, sizes))):
        sums = tiles.added(sums, tiles.cut(together, limits, sums) ** 2, limits)
    for image, (h, w), z in zip(tiles.mean(sums), sizes, alone, strict=True):
        (expected,) = in_tiles(lambda x: x**2, z[None].astype(np.float32), Tiles((16, 16)))
        np.testing.assert_allclose(image[:h, :w], expected, rtol=1e-5)
        assert not np.any(image[h:])
        assert not np.any(image[:, w:])


def test_correct_weights_are_symmetric_and_the_published_are_not():
    correct, published = blend_weights((16, 16)), PublishedTiling(8).weights((16, 16))
    np.testing.assert_allclose(correct, correct[::-1], rtol=1e-12)
    np.testing.assert_allclose(published, published[:, ::-1], rtol=1e-12)
    assert not np.allclose(published, published[::-1])
    assert published.argmax() // 16 == 8


@pytest.mark.parametrize(
    ("old", "new", "canvas"),
    [
        ((13, 17), (50, 71), (56, 72)),
        pytest.param((100, 90), (40, 30), (48, 40), marks=pytest.mark.slow),
        pytest.param((12, 3000), (30, 9001), (32, 9008), marks=pytest.mark.slow),
    ],
)
def test_images_are_resized_as_pil_does_it(old, new, canvas):
    """Alone, and in the corner of an array whose rest must not be seen."""
    image = np.random.default_rng(0).random((*old, 3), np.float32)
    expected = resize(image, new)
    margins = [(0, side - length) for side, length in zip(canvas, new, strict=True)]
    expected = np.pad(expected, (*margins, (0, 0)), "reflect")
    (alone,) = resized(image[None], old, new, canvas)
    np.testing.assert_allclose(alone, expected, atol=2e-6)
    larger = np.full((2, old[0] + 3, old[1] + 5, 3), 7, np.float32)
    larger[:, : old[0], : old[1]] = image
    found = resized(larger, np.array([old, old]), np.array([new, new]), canvas)
    np.testing.assert_allclose(found[1], expected, atol=2e-6)


def test_an_image_of_the_right_size_is_left_as_it_is():
    image = np.random.default_rng(0).random((1, 40, 56, 3), np.float32)
    np.testing.assert_array_equal(resized(image, (40, 56), (40, 56), (40, 56)), image)


def test_large_matrices_are_made_in_blocks(monkeypatch):
    image = np.random.default_rng(0).random((1, 31, 40, 3), np.float32)
    expected = resized(image, (31, 40), (70, 90), (72, 96))
    monkeypatch.setattr(resizing, "_LARGEST_MATRIX", 500)
    np.testing.assert_allclose(resized(image, (31, 40), (70, 90), (72, 96)), expected, atol=1e-6)


def test_products_beyond_32_bits_are_divided_rightly():
    a, b, by = 199_999, 99_991, 200_000
    assert a * b > 2**32
    whole, rest = resizing._divided(jnp.int32(a), jnp.int32(b), jnp.int32(by))
    assert (int(whole), int(rest)) == divmod(a * b, by)


def test_scales_above_four_take_two_stages():
    assert stages((10, 20), (40, 80)) == [(40, 80)]
    assert stages((10, 20), (80, 160)) == [(40, 80), (80, 160)]


def test_process_sizes():
    assert process_size((512, 700), 512) == (512, 700)
    assert process_size((100, 200), 512) == (512, 1024)
    with pytest.raises(InputError, match="megapixels"):
        process_size((12, 80000), 512)


def test_published_sizes():
    script, four = Script(512, 8, 1), Enlargement(scale=4)
    sizes = script.sizes((131, 150), four)
    assert (sizes.processed, sizes.output) == ((520, 600), (520, 600))
    sizes = script.sizes((99, 150), four)
    assert sizes.enlarged == (128, int(128 / 99 * 150))
    assert sizes.output == (396, 600)
    sizes = FirstScript(512, 8, 1).sizes((131, 150), four)
    assert (sizes.processed, sizes.kept, sizes.output) == ((1024, 1024), (524, 600), (524, 600))


def test_the_published_overlap_is_a_share_of_the_process_size():
    """512 at x3 is floored to 504: 63 latents, which overlap by the half of 64."""
    tiling, first = Script(512, 8, 1).tiling, FirstScript(512, 8, 1).tiling
    assert [tiling.stride(side) for side in (64, 63)] == [32, 31]
    assert [first.stride(side) for side in (64, 63)] == [48, 47]
    assert [Tiles((63, 63), kind).on((63, 126)) for kind in (tiling, Tiling())] == [4, 3]


@pytest.mark.parametrize(
    ("process", "patch", "source", "scale"),
    [
        (1024, 2, (341, 400), 3),  # FLUX is told the positions of 64 x 64 tokens
        (1024, 2, (200, 250), 3),
        (16, 1, (5, 20), 3),  # a tile of one latent, which overlaps the next by one
    ],
)
def test_what_the_published_script_fails_at_is_refused(process, patch, source, scale):
    with pytest.raises(InputError, match="the published script fails at"):
        Script(process, 8, patch).sizes(source, Enlargement(scale=scale))


def test_size_requests():
    assert Enlargement(scale=1.5).of((3, 5)) == (5, 8)
    assert Enlargement(longest_side=100).of((30, 50)) == (60, 100)
    with pytest.raises(InputError, match="at most 8"):
        Enlargement(longest_side=1000).of((30, 50))


def _make(stage, shared):
    return Canvas(stage, (8, 8), 8, 8, shared)


def _stage(height, width):
    return Stage((height // 4, width // 4), (height, width), (height, width))


def test_many_sizes_are_merged_to_few_canvases():
    rng = np.random.default_rng(0)
    sizes = {_stage(int(h), int(w)): 1 for h, w in rng.integers(40, 900, (60, 2))}
    canvases = merged(sizes, 4, _make)
    assert len(canvases) == 4
    for stage in sizes:
        assert any(stage.within(canvas.extent) for canvas in canvases)
    alone = {_stage(64, 64): 5, _stage(128, 96): 1}
    assert merged(alone, 4, _make) == [_make(stage, False) for stage in alone]


def _adain_in_torch(image, source):
    def statistics(x):
        flat = x.reshape(3, -1)
        return flat.mean(1)[:, None, None], (flat.var(1) + 1e-5).sqrt()[:, None, None]

    (mean, deviation), (source_mean, source_deviation) = statistics(image), statistics(source)
    return (image - mean) / deviation * source_deviation + source_mean


def _wavelet_in_torch(image, source):
    kernel = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])) / 16

    def low(x):
        for level in range(5):
            radius = 2**level
            padded = functional.pad(x[:, None], (radius,) * 4, mode="replicate")
            x = functional.conv2d(padded, kernel[None, None], dilation=radius)[:, 0]
        return x

    return image - low(image) + low(source)


@pytest.mark.parametrize(
    ("method", "reference"), [("adain", _adain_in_torch), ("wavelet", _wavelet_in_torch)]
)
def test_colours_are_aligned_as_published(method, reference):
    image, source = (photo(40, 56, seed=seed).astype(np.float32) / 255 for seed in (0, 1))
    theirs = reference(*(torch.from_numpy(x).movedim(-1, 0) for x in (image, source)))
    (ours,) = colour.align(image[None], source[None], method)
    # fp32 on both sides
    np.testing.assert_allclose(ours, theirs.clamp(0, 1).movedim(0, -1).numpy(), atol=2e-6)


def test_lab_takes_the_statistics_of_the_source():
    source = photo(40, 56, seed=1).astype(np.float32) / 255 * 0.5 + 0.25
    image = source**1.2 * 0.8
    (aligned,) = colour.align(image[None], source[None], "lab")
    assert np.abs(aligned - source).mean() < 0.3 * np.abs(image - source).mean()
    (same,) = colour.align(source[None], source[None], "lab")
    np.testing.assert_allclose(same, source, atol=1e-5)


@pytest.mark.parametrize("method", ["adain", "wavelet", "lab"])
def test_colours_on_a_canvas_are_those_of_the_image_alone(method):
    sizes = [(40, 56), (23, 31)]
    pairs = [[photo(*s, seed=i) / np.float32(255) for i in (0, 1)] for s in sizes]
    image, source = np.full((2, 2, 48, 64, 3), 0.9, np.float32)
    for i, ((h, w), pair) in enumerate(zip(sizes, pairs, strict=True)):
        image[i, :h, :w], source[i, :h, :w] = pair
    together = colour.align(image, source, method, jnp.array(sizes))
    for found, (h, w), pair in zip(together, sizes, pairs, strict=True):
        (alone,) = colour.align(pair[0][None], pair[1][None], method)
        np.testing.assert_allclose(found[:h, :w], alone, atol=2e-6)


def test_memory_that_caches_files_is_free_to_be_used(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemFree:   5 kB\nMemAvailable:     700 kB\nHugePages_Total: 0\n")
    assert available_on_host(meminfo) == 700 * 1024
    assert available_on_host(tmp_path / "absent") > 0


def test_decoding_takes_the_memory_that_is_planned_for_it():
    """Left to itself the compiler for CPUs takes 2.7 times as much."""
    config = ARCHITECTURES["sd"]
    vae = dataclasses.replace(config.vae, block_out_channels=(32, 64, 128, 128), norm_num_groups=8)
    graph, state = nnx.split(OMGSR(dataclasses.replace(config, vae=vae), rngs=None))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), state)
    mesh = layout.device_groups(jax.devices()[:1], 1)
    with jax.default_matmul_precision("highest"):  # without Winograd's algorithm, soon compiled
        upscaler = Upscaler(nnx.merge(graph, shapes), 512, color="adain", precision="fp32")
        (how,) = upscaler.steps((128, 128))
        compiled = upscaler.programs.trace(how.decoding).lower().compile()
    planned = 512 * 512 * Budget.of(mesh, vae, "fp32").per_pixel
    assert 0.9 * planned <= compiled.memory_analysis().temp_size_in_bytes <= 1.1 * planned
