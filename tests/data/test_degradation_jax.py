import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from omgsr_jax.data import degradation, degradation_jax
from omgsr_jax.data.config import DataConfig
from omgsr_jax.data.degradation_jax import canvases, degrade_batch, degrade_one, plan_arrays
from omgsr_jax.data.jpeg_jax import jpeg
from omgsr_jax.data.kernels import Kernel, render
from omgsr_jax.data.pipeline import make_pipeline, to_device
from omgsr_jax.data.plan import (
    PRESETS,
    RESIZE_MODES,
    DegradationConfig,
    example_rng,
    sampled_plan,
    stage_sizes,
)
from tests.data.photos import synthetic_photo

SIZE = (64, 80)
SQUARE = (64, 64)  # of whole batches
CONFIG = DegradationConfig()


def draw(index):
    return sampled_plan(CONFIG, example_rng(11, 0, index))


def stacked(plans):
    arrays = [plan_arrays(plan, CONFIG, SQUARE) for plan in plans]
    return {key: np.stack([a[key] for a in arrays]) for key in arrays[0]}


def on_canvas(image, canvas):
    """h w c in the top left of c H W, garbage elsewhere."""
    h, w, c = image.shape
    placed = np.full((c, *canvas), 0.77, np.float32)
    placed[:, :h, :w] = image.transpose(2, 0, 1)
    return placed


@pytest.mark.parametrize("quality", [30, 60, 75, 95, 100])
@pytest.mark.parametrize("size", [(96, 128), (61, 83)])
def test_jpeg_is_within_a_grey_level_of_a_real_encoder(quality, size):
    photo = synthetic_photo(*size)
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=quality)
    expected = np.asarray(Image.open(buffer)).astype(float)
    canvas = on_canvas(photo / np.float32(255), (112, 144))
    ours = np.asarray(jax.jit(jpeg)(canvas, size, jnp.int32(quality))) * 255
    ours = ours[:, : size[0], : size[1]].transpose(1, 2, 0)
    difference = np.abs(ours - expected)
    # libjpeg's DCT works in fixed point, so some coefficients are rounded the other way.
    assert difference.mean() < 1.0
    # What JPEG loses is far more, so this is not the similarity of the photo to itself.
    assert difference.mean() < 0.5 * np.abs(photo - expected).mean()


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("target", [(47, 61), (96, 128), (110, 160), (48, 64)])
def test_resizing_by_matrices_is_that_of_torch(mode, target):
    image = synthetic_photo(96, 128).astype(np.float32) / 255
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(tensor, size=target, mode=mode)[0].numpy()
    canvas = on_canvas(image, (112, 144))
    resize = jax.jit(degradation_jax.resize, static_argnames="canvas")
    ours = resize(
        canvas, (96, 128), target, canvas=(128, 176), mode=jnp.int32(RESIZE_MODES.index(mode))
    )
    np.testing.assert_allclose(ours[:, : target[0], : target[1]], expected, atol=5e-6)
    # Beyond its size an image repeats its edge, as JPEG expects.
    np.testing.assert_allclose(
        ours[:, target[0] :, 5], np.repeat(expected[:, -1:, 5], 128 - target[0], axis=1), atol=5e-6
    )


@pytest.mark.parametrize("size", [(40, 50), (64, 80), (13, 11)])
def test_blur_by_matrices_mirrors_about_the_image_not_the_canvas(size):
    kernel = Kernel("sinc", 21, cutoff=1.4)
    image = synthetic_photo(64, 80)[: size[0], : size[1]].astype(np.float32) / 255
    blurred = jax.jit(degradation_jax.blur)(
        on_canvas(image, (64, 80)), render(kernel).astype(np.float32), size
    )
    expected = degradation.blur(image, kernel).transpose(2, 0, 1)
    np.testing.assert_allclose(blurred[:, : size[0], : size[1]], expected, atol=2e-5)


@pytest.mark.parametrize("rate", [0.02, 0.7, 4.0, 9.99, 10.01, 40.0, 256.0])
def test_counts_are_poisson(rate):
    z = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    counts = np.asarray(jax.jit(degradation_jax.poisson_quantile)(np.float32(rate), z))
    values = np.arange(int(counts.max()) + 1)
    cdf = (counts[:, None] <= values).mean(axis=0)
    # Kolmogorov's bound at p = 0.001.
    assert np.abs(cdf - stats.poisson.cdf(values, rate)).max() < 1.95 / np.sqrt(z.size)
    assert counts.var() == pytest.approx(rate, rel=0.05)


def test_the_peak_counts_the_levels_in_use():
    levels = np.random.default_rng(0).choice(np.arange(256), 37, replace=False)
    image = np.random.default_rng(1).choice(levels, (3, 40, 40)).astype(np.int32)
    assert degradation_jax._levels_used(image) == len(np.unique(image)) == 37


@pytest.mark.parametrize("poisson", [False, True])
@pytest.mark.parametrize("grey", [False, True])
def test_noise_has_the_variance_of_the_hosts(poisson, grey):
    image = synthetic_photo(200, 200).astype(np.float32) / 255 * 0.6 + 0.2
    stage = dataclasses.replace(draw(0).first, poisson=poisson, grey=grey, noise=0.7)
    plan = dataclasses.replace(draw(0), first=stage)
    normal = np.random.default_rng(0).standard_normal((3, 200, 200), dtype=np.float32)
    arrays = plan_arrays(plan, CONFIG, SIZE)
    ours = degradation_jax.add_noise(image.transpose(2, 0, 1), arrays, 0, normal)
    ours = np.asarray(ours).transpose(1, 2, 0) - image
    host = degradation.add_noise(image, stage, np.random.default_rng(1)) - image
    # 40,000 samples: 0.7% for the variance of one, 1% for the ratio; grey has only these.
    assert ours.var() == pytest.approx(host.var(), rel=0.04)
    assert (np.ptp(ours, axis=2).max() < 1e-6) == grey


def without_poisson(plan):
    """The host's Poisson counts use other random numbers besides its normals."""
    first, second = (dataclasses.replace(s, poisson=False) for s in (plan.first, plan.second))
    return dataclasses.replace(plan, first=first, second=second)


def host_normals(plan):
    """The noise fields that the host will draw for `plan`, on canvases."""
    rng = np.random.default_rng(plan.noise_seed)
    sizes = stage_sizes(plan, SIZE, CONFIG.scale)[:2]
    fields = []
    for stage, size, canvas in zip(
        (plan.first, plan.second), sizes, canvases(CONFIG, SIZE)[:2], strict=True
    ):
        field = rng.standard_normal((*size, 1 if stage.grey else 3), dtype=np.float32)
        fields.append(on_canvas(np.broadcast_to(field, (*size, 3)), canvas))
    return tuple(fields)


def test_both_implementations_carry_out_a_plan_alike():
    """With the host's noise fields the two agree pixel by pixel, but for the rounding in JPEG."""
    hr = synthetic_photo(*SIZE)
    run = jax.jit(degrade_one, static_argnames="config")
    differences, losses = [], []
    for index in range(24):
        plan = without_poisson(draw(index))
        ours = run(
            hr,
            plan_arrays(plan, CONFIG, SIZE),
            host_normals(plan),
            config=CONFIG,
        )
        host = degradation.degrade(hr, plan, CONFIG.scale).astype(float)
        differences.append(np.abs(np.asarray(ours, float) - host).mean())
        losses.append(np.abs(host - hr).mean())
    # Coefficients that two JPEGs round differently, in small images; the degradation itself is
    # ten times that.
    assert np.mean(differences) < 1.5
    assert np.max(differences) < 3
    assert np.mean(losses) > 10 * np.mean(differences)


def test_an_image_does_not_depend_on_its_batch():
    hr = np.stack([synthetic_photo(*SQUARE, seed=i) for i in range(4)])
    together = degrade_batch(hr, stacked([draw(i) for i in range(4)]), CONFIG)
    reordered = degrade_batch(hr[::-1], stacked([draw(i) for i in (3, 2, 1, 0)]), CONFIG)
    assert (together.shape, together.dtype) == (hr.shape, np.uint8)
    np.testing.assert_array_equal(together, reordered[::-1])
    reseeded = dataclasses.replace(draw(0), noise_seed=1)
    other = degrade_batch(hr, stacked([reseeded, *(draw(i) for i in (1, 2, 3))]), CONFIG)
    np.testing.assert_array_equal(together[1:], other[1:])
    assert (together[0] != other[0]).any()


def test_no_plan_outgrows_its_canvas():
    for resolution, config in PRESETS.items():
        shapes = canvases(config, (resolution, resolution))
        assert all(n % 16 == 0 for shape in shapes for n in shape)
        for index in range(300):
            sizes = stage_sizes(
                sampled_plan(config, example_rng(0, 0, index)), (resolution,) * 2, config.scale
            )
            for size, shape in zip(sizes, shapes, strict=True):
                assert size[0] <= shape[0]


@pytest.mark.slow
def test_the_pipeline_can_leave_the_degradation_to_the_device(tmp_path):
    for i in range(4):
        Image.fromarray(synthetic_photo(150, 150, i)).save(tmp_path / f"{i}.png")
    host = DataConfig((str(tmp_path),), resolution=64, batch_size=4, degradation=CONFIG, workers=0)
    device = dataclasses.replace(host, degrade_on="device")
    expected = next(iter(make_pipeline(host)))
    batch = next(iter(to_device(make_pipeline(device))))
    assert set(batch) == {"plan", "hr", "id"}
    assert batch["id"] == expected["id"]
    np.testing.assert_array_equal(batch["hr"], expected["hr"])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch["plan"])
    assert shapes == degradation_jax.plan_shapes(CONFIG, SQUARE, 4)
    # The same plans with other noise fields: alike, not equal.
    lr = np.asarray(degrade_batch(batch["hr"], batch["plan"], CONFIG), float)
    apart = np.abs(lr - expected["lr"]).mean(axis=(1, 2, 3))
    lost = np.abs(expected["lr"].astype(float) - expected["hr"]).mean(axis=(1, 2, 3))
    assert (apart < 0.8 * lost).all()
    assert apart.min() > 0
