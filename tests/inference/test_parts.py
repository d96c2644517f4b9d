"""Tile geometry, weights, sizes and colour, each against a reference written here."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from omgsr_jax.errors import InputError
from omgsr_jax.inference import colour
from omgsr_jax.inference.engine import _merge, available_on_host
from omgsr_jax.inference.published import PublishedSizes, PublishedTiling
from omgsr_jax.inference.sizes import Enlargement, process_size, stages
from omgsr_jax.inference.tiling import blend, blend_weights, latent_tiles, windows

from .conftest import photo


@pytest.mark.parametrize("size", [(64, 64), (64, 65), (100, 131), (200, 64)])
def test_latent_tiles_cover_everything_and_lie_inside(size):
    seen = np.zeros(size)
    for top, left in latent_tiles(size, 64):
        assert 0 <= top <= size[0] - 64
        assert 0 <= left <= size[1] - 64
        seen[top : top + 64, left : left + 64] += 1
    assert seen.min() >= 1


def test_blended_tiles_of_one_image_are_that_image():
    image = np.random.default_rng(0).normal(size=(40, 50, 4))
    corners = latent_tiles((40, 50), 16)
    tiles = ((corner, image[corner[0] :, corner[1] :][:16, :16]) for corner in corners)
    blended = blend((40, 50), tiles, blend_weights(16))
    np.testing.assert_allclose(blended, image, atol=1e-6)  # stored in fp32


def test_correct_weights_are_symmetric_and_the_published_are_not():
    correct, published = blend_weights(16), PublishedTiling().weights(16)
    np.testing.assert_allclose(correct, correct[::-1], rtol=1e-12)
    np.testing.assert_allclose(published, published[:, ::-1], rtol=1e-12)
    assert not np.allclose(published, published[::-1])
    assert published.argmax() // 16 == 8


@pytest.mark.parametrize("size", [(96, 96), (256, 320), (200, 1000), (64, 520)])
def test_window_cores_abut_and_have_their_halo(size):
    covered = np.zeros(size, int)
    for part in windows(size, (192, 192), 32, 8):
        top, bottom, left, right = part.core
        covered[top:bottom, left:right] += 1
        for start, end, core_start, core_end, length in (
            (part.top, part.top + part.height, top, bottom, size[0]),
            (part.left, part.left + part.width, left, right, size[1]),
        ):
            assert 0 <= start <= core_start < core_end <= end <= length
            assert core_start - start >= 32 or start == 0
            assert end - core_end >= 32 or end == length
            assert all(edge % 8 == 0 for edge in (start, end, core_start, core_end))
    assert (covered == 1).all()


def test_scales_above_four_take_two_stages():
    assert stages((10, 20), (40, 80)) == [(40, 80)]
    assert stages((10, 20), (80, 160)) == [(40, 80), (80, 160)]


def test_process_sizes():
    assert process_size((512, 700), 512) == (512, 700)
    assert process_size((100, 200), 512) == (512, 1024)
    with pytest.raises(InputError, match="megapixels"):
        process_size((12, 80000), 512)


def test_published_sizes():
    sizes = PublishedSizes.of((131, 150), 4, 512)
    assert (sizes.processed, sizes.output) == ((520, 600), (520, 600))
    sizes = PublishedSizes.of((99, 150), 4, 512)
    assert sizes.enlarged == (128, int(128 / 99 * 150))
    assert sizes.output == (396, 600)


def test_size_requests():
    assert Enlargement(scale=1.5).of((3, 5)) == (5, 8)
    assert Enlargement(longest_side=100).of((30, 50)) == (60, 100)
    with pytest.raises(InputError, match="at most 8"):
        Enlargement(longest_side=1000).of((30, 50))


def test_many_sizes_are_merged_to_few_canvases():
    rng = np.random.default_rng(0)
    sizes = {(int(h), int(w)): 1 for h, w in rng.integers(40, 900, (60, 2))}
    merged = _merge(sizes, 3, lambda size: True)
    assert len(merged) == 3
    assert all(any(h <= H and w <= W for H, W in merged) for h, w in sizes)
    limited = _merge(sizes, 3, lambda size: size[0] * size[1] <= 500_000)
    assert all(size in sizes or size[0] * size[1] <= 500_000 for size in limited)


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
    ours = colour.align(image, source, method)
    # fp32 on both sides
    np.testing.assert_allclose(ours, theirs.clamp(0, 1).movedim(0, -1).numpy(), atol=2e-6)


def test_lab_takes_the_statistics_of_the_source():
    source = photo(40, 56, seed=1).astype(np.float32) / 255 * 0.5 + 0.25
    image = source**1.2 * 0.8
    aligned = colour.align(image, source, "lab")
    assert np.abs(aligned - source).mean() < 0.3 * np.abs(image - source).mean()
    np.testing.assert_allclose(colour.align(source, source, "lab"), source, atol=1e-5)


def test_memory_that_caches_files_is_free_to_be_used(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemFree:   5 kB\nMemAvailable:     700 kB\nHugePages_Total: 0\n")
    assert available_on_host(meminfo) == 700 * 1024
    assert available_on_host(tmp_path / "absent") > 0
