import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from omgsr_jax.data import degradation
from omgsr_jax.data.degradation import add_noise, blur, degrade, degrade_folder, jpeg, resize
from omgsr_jax.data.kernels import Kernel, render
from omgsr_jax.data.plan import PRESETS, Stage, example_rng, sampled_plan
from omgsr_jax.errors import InputError
from tests.data.photos import synthetic_photo

PHOTO = synthetic_photo(128, 160)


def stage(**changes):
    plain = Stage(None, 1.0, "area", poisson=False, noise=0.0, grey=False, quality=90)
    return dataclasses.replace(plain, **changes)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("kind", ["iso", "aniso", "plateau_iso", "sinc"])
def test_blur_is_correlation_with_a_mirrored_border(kind):
    kernel = Kernel(kind, 13, sigma=(2.0, 0.7), theta=0.4, cutoff=1.4)
    image = PHOTO[:40, :50].astype(np.float32) / 255
    padded = np.pad(image, ((6, 6), (6, 6), (0, 0)), mode="reflect").astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (13, 13), axis=(0, 1))
    expected = np.einsum("hwcij,ij->hwc", windows, render(kernel))
    # 2e-5 is a two-hundredth of a grey level: fp32 and the trimmed taps.
    np.testing.assert_allclose(blur(image, kernel), expected, atol=2e-5)


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(47, 61), (128, 160), (150, 240), (33, 200), (256, 320)])
def test_resizing_is_that_of_torch(mode, size):
    image = PHOTO.astype(np.float32) / 255
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(tensor, size=size, mode=mode)[0].permute(1, 2, 0)
    # OpenCV keeps its bicubic coefficients in fp32 too: a fiftieth of a grey level.
    np.testing.assert_allclose(resize(image, size, mode), expected.numpy(), atol=8e-5)


@pytest.mark.parametrize("grey", [False, True])
def test_gaussian_noise_has_its_sigma_and_grey_noise_is_the_same_in_all_channels(grey):
    flat = np.full((256, 256, 3), 0.5, np.float32)
    added = (add_noise(flat, stage(noise=9.0, grey=grey), np.random.default_rng(0)) - flat) * 255
    # 65536 samples: the standard error of sigma is 0.3%, of the mean 0.035.
    np.testing.assert_allclose(added.std(axis=(0, 1)), 9.0, rtol=0.015)
    np.testing.assert_allclose(added.mean(axis=(0, 1)), 0.0, atol=0.15)
    between = np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]
    assert between == pytest.approx(1.0 if grey else 0.0, abs=0.02)


@pytest.mark.parametrize("level", [1, 3, 9, 10, 30, 200])
def test_counts_are_poisson(level):
    """Against scipy's distribution, below and above the rate at which the method changes."""
    base = np.full((401, 256, 1), level / 255, np.float32)
    base[0, :, 0] = np.arange(256) / 255  # all levels in use: peak 256
    rng = np.random.default_rng(1)
    normal = rng.standard_normal(base.shape, dtype=np.float32)
    noise = degradation._poisson_noise(base, normal, rng)
    counts, rate = ((noise + base)[1:] * 256).ravel(), level / 255 * 256
    values = np.arange(int(counts.min()), int(counts.max()) + 2)
    cdf = (counts[:, None] < values + 0.5).mean(axis=0)
    # Kolmogorov's bound at p = 0.001.
    assert np.abs(cdf - stats.poisson.cdf(values, rate)).max() < 1.95 / np.sqrt(counts.size)
    assert counts.mean() == pytest.approx(rate, rel=0.015)
    assert counts.var() == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize("grey", [False, True])
def test_poisson_noise_has_the_variance_of_its_rate(grey):
    """A ramp that uses all 256 levels: peak 256, variance scale^2 level / (255 * 256)."""
    ramp = np.repeat(np.arange(256, dtype=np.float32)[None, :, None] / 255, 4000, axis=0)
    image = np.repeat(ramp, 3, axis=2)
    shot = stage(poisson=True, noise=0.5, grey=grey)
    added = add_noise(image, shot, np.random.default_rng(0)) - image
    inside = slice(8, 224)  # away from the levels where clipping to [0, 1] bites
    expected = 0.25 * np.arange(256) / 255 / 256
    measured = added[:, inside].var(axis=0).mean(axis=1)
    # 4000 samples: 2.2% standard error each; over 216 levels the mean ratio is known to 0.2%.
    assert np.mean(measured / expected[inside]) == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(measured / expected[inside], 1.0, atol=0.12)
    assert np.abs(added[:, inside].mean()) < 1e-4
    assert (np.ptp(added, axis=2).max() < 1e-6) == grey


def test_poisson_noise_grows_where_few_levels_are_used():
    """Two levels make a peak of 2 counts: the published rule, odd as it is."""
    image = np.zeros((300, 300, 3), np.float32)
    image[:150] = 0.6
    shot = stage(poisson=True, noise=0.1)
    added = add_noise(image, shot, np.random.default_rng(0)) - image
    assert added[:150].var() == pytest.approx(0.01 * 0.6 / 2, rel=0.03)
    assert not added[150:].any()


@pytest.mark.parametrize("quality", [60, 75, 95, 100])
def test_jpeg_is_that_of_another_encoder(quality):
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "JPEG", quality=quality)
    expected = np.asarray(Image.open(buffer)).astype(float)
    ours = jpeg(PHOTO.astype(np.float32) / 255, quality) * 255.0
    assert np.abs(ours - expected).mean() < 0.1


def test_low_quality_images_have_the_promised_sizes_and_type():
    plan = sampled_plan(PRESETS[512], example_rng(0, 0, 0))
    small, restored = degrade(PHOTO, plan, 4, resize_back=False), degrade(PHOTO, plan, 4)
    assert small.shape == (32, 40, 3)
    assert restored.shape == PHOTO.shape
    assert small.dtype == restored.dtype == np.uint8


def test_the_same_plan_gives_the_same_image_and_another_another():
    plans = [sampled_plan(PRESETS[512], example_rng(0, 0, i)) for i in (0, 0, 1)]
    first, again, other = (degrade(PHOTO, plan, 4) for plan in plans)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    reseeded = dataclasses.replace(plans[0], noise_seed=plans[0].noise_seed ^ 1)
    assert (degrade(PHOTO, reseeded, 4) != first).any()


def test_the_order_of_jpeg_and_final_filter_matters():
    plan = sampled_plan(PRESETS[512], example_rng(0, 0, 0))
    plan = dataclasses.replace(plan, final_sinc=Kernel("sinc", 21, cutoff=1.2))
    last, first = (
        degrade(PHOTO, dataclasses.replace(plan, jpeg_last=order), 4) for order in (True, False)
    )
    assert (last != first).mean() > 0.1
    assert psnr(last, first) > 20  # the same picture nevertheless


def test_a_harmless_plan_is_bicubic_downsampling_and_up_again():
    """Everything off but the resizes: what stays is what torch's interpolation gives."""
    quiet = stage(quality=100)
    plan = dataclasses.replace(
        sampled_plan(PRESETS[512], example_rng(0, 0, 0)),
        first=quiet,
        second=dataclasses.replace(quiet, mode="bicubic"),
        final_sinc=None,
        resize_back_mode="bicubic",
    )
    grey = np.repeat(PHOTO[..., :1], 3, axis=2)  # no chroma for JPEG to subsample
    tensor = torch.from_numpy(grey / np.float32(255)).permute(2, 0, 1)[None]
    for size in ((32, 40), (128, 160)):
        tensor = torch.nn.functional.interpolate(tensor, size=size, mode="bicubic")
    expected = tensor[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
    # What remains is two times JPEG at quality 100.
    assert np.abs(degrade(grey, plan, 4) - expected).mean() < 1


def test_what_is_not_an_rgb_image_is_refused():
    plan = sampled_plan(PRESETS[512], example_rng(0, 0, 0))
    for image in (PHOTO[..., 0], PHOTO / 255.0, PHOTO[:3]):
        with pytest.raises(ValueError, match="h w 3 uint8, of at least 4 px a side"):
            degrade(image, plan, 4)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(synthetic_photo(70, 90, i)).save(folder / f"photo{i}.png")
    return folder


def test_a_folder_becomes_pairs_with_their_plans(folder, tmp_path):
    summary = degrade_folder(folder, tmp_path / "out", seed=3)
    assert (summary.written, summary.failed) == (3, ())
    lr, hr = (np.asarray(Image.open(tmp_path / "out" / k / "photo1.png")) for k in ("lr", "hr"))
    assert hr.shape == (68, 88, 3)
    assert lr.shape == (17, 22, 3)
    np.testing.assert_array_equal(hr, synthetic_photo(70, 90, 1)[1:69, 1:89])
    lines = (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["file"] for record in records] == ["photo0.png", "photo1.png", "photo2.png"]
    assert records[0]["plan"]["noise_seed"] != records[1]["plan"]["noise_seed"]


def test_a_pair_does_not_depend_on_its_neighbours(folder, tmp_path):
    degrade_folder(folder, tmp_path / "all", seed=3)
    (folder / "photo0.png").unlink()
    degrade_folder(folder, tmp_path / "fewer", seed=3)
    degrade_folder(folder, tmp_path / "reseeded", seed=4)
    read = [(tmp_path / k / "lr" / "photo1.png").read_bytes() for k in ("all", "fewer", "reseeded")]
    assert read[0] == read[1] != read[2]


def test_what_cannot_be_degraded_is_reported_and_the_rest_done(folder, tmp_path):
    data = (folder / "photo0.png").read_bytes()
    (folder / "photo0.png").write_bytes(data[: len(data) // 2])
    summary = degrade_folder(folder, tmp_path / "out", crop=64)
    assert summary.written == 2
    [(path, message)] = summary.failed
    assert path.endswith("photo0.png")
    assert "damaged" in message
    [(_, message), *_] = degrade_folder(folder, tmp_path / "out", crop=128).failed[1:]
    assert "90x70 px is too small for a crop of 128 px" in message


def test_two_images_of_one_name_are_refused_before_anything_is_written(folder, tmp_path):
    Image.fromarray(PHOTO).save(folder / "photo1.jpg")
    with pytest.raises(InputError, match=r"would both be written as photo1\.png"):
        degrade_folder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_may_not_land_among_their_sources(folder):
    with pytest.raises(InputError, match="lies inside"):
        degrade_folder(folder, folder / "out")
