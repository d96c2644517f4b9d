"""The grid detector: silent on photographs, loud on a grid that the eye hardly sees."""

import io

import numpy as np
import pytest
from PIL import Image

from omgsr_jax.evaluation.grid import grid_peak
from tests.evaluation.images import photograph

QUIET = 5.5  # dB: what photographs stay below


def add_tile(image, period, amplitude, seed=0):
    """The same random pattern in every patch: what a biased patch decoder leaves."""
    tile = np.random.default_rng(seed).standard_normal((period, period)) * amplitude
    pattern = np.tile(tile, [side // period + 1 for side in image.shape[:2]])
    return clip(image + pattern[: image.shape[0], : image.shape[1], None])


def add_seams(image, period, amplitude, seed=0):
    """Another level in every patch: seams of random sign, no fixed pattern."""
    blocks = [side // period + 1 for side in image.shape[:2]]
    levels = np.random.default_rng(seed).standard_normal(blocks) * amplitude
    pattern = np.kron(levels, np.ones((period, period)))
    return clip(image + pattern[: image.shape[0], : image.shape[1], None])


def clip(image):
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photographs():
    return np.stack([photograph(seed, 256, 384, slope=1.6) for seed in range(4)])


def test_photographs_have_no_grid(photographs):
    assert np.abs(grid_peak(photographs)).max() < QUIET


@pytest.mark.parametrize("spoil", [add_tile, add_seams])
def test_a_grid_of_four_grey_levels_is_found(photographs, spoil):
    spoiled = np.stack([spoil(image, 16, 4.0) for image in photographs])
    assert np.min(grid_peak(spoiled)) > QUIET


def test_a_grid_of_another_period_is_not_found(photographs):
    spoiled = np.stack([add_tile(image, 12, 4.0) for image in photographs])
    assert np.max(grid_peak(spoiled, period=16)) < QUIET
    assert np.min(grid_peak(spoiled, period=12)) > QUIET


def test_jpeg_blocks_are_no_16_px_grid_but_an_8_px_one(photographs):
    coded = []
    for image in photographs:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=40)
        coded.append(np.asarray(Image.open(file)))
    assert np.max(grid_peak(np.stack(coded), period=16)) < QUIET
    assert np.min(grid_peak(np.stack(coded), period=8)) > QUIET


def test_kodak_photographs_have_no_grid(data):
    for path in sorted((data / "kodak24").glob("*.png"))[:6]:
        image = np.asarray(Image.open(path).convert("RGB").crop((0, 0, 512, 512)))
        assert abs(grid_peak(image[None])[0]) < QUIET, path.name
        assert grid_peak(add_seams(image, 16, 3.0)[None])[0] > QUIET, path.name
