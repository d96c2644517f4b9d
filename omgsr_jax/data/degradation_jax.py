"""The Real-ESRGAN degradation on the accelerator: one jitted program for a batch of plans.

Sizes vary from image to image, shapes must not: each image lies in the top left of a canvas that
holds the largest size its stage can have. Blurs, resizes and the DCT of JPEG are all matrix
products. Inside, one image is c h w in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .degradation import LUMA
from .jpeg_jax import Size, jpeg
from .kernels import Kernel, pulse, render
from .plan import (
    RESIZE_MODES,
    DegradationConfig,
    Plan,
    example_rng,
    sampled_plan,
    stage_sizes,
)

PlanArrays = dict[str, jax.Array]
_PRECISION = jax.lax.Precision.HIGHEST
_CUBIC_A = -0.75


def plan_arrays(
    plan: Plan, config: DegradationConfig, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """A plan for an image of (height, width) as NumPy arrays of fixed shapes, to be stacked."""
    taps = config.kernel_size[1]

    def rendered(kernel: Kernel | None) -> np.ndarray:
        return pulse(taps) if kernel is None else render(kernel, pad_to=taps)

    stages = (plan.first, plan.second)
    kernels = (plan.first.kernel, plan.second.kernel, plan.final_sinc)
    modes = (plan.first.mode, plan.second.mode, plan.lr_mode, plan.resize_back_mode)
    return {
        "kernels": np.stack([rendered(kernel) for kernel in kernels]).astype(np.float32),
        "sizes": np.array(stage_sizes(plan, size, config.scale)[:2], np.int32),
        "modes": np.array([RESIZE_MODES.index(mode) for mode in modes], np.int32),
        "poisson": np.array([stage.poisson for stage in stages]),
        "noise": np.array([stage.noise for stage in stages], np.float32),
        "grey": np.array([stage.grey for stage in stages]),
        "quality": np.array([stage.quality for stage in stages], np.int32),
        "jpeg_last": np.array(plan.jpeg_last),
        "noise_seed": np.array(plan.noise_seed, np.uint32),
    }


def plan_shapes(
    config: DegradationConfig, size: tuple[int, int], count: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Of `count` stacked `plan_arrays`."""
    plan = sampled_plan(config, example_rng(0, 0, 0))
    assert isinstance(plan, Plan)
    arrays = plan_arrays(plan, config, size)
    return {
        key: jax.ShapeDtypeStruct((count, *array.shape), array.dtype)
        for key, array in arrays.items()
    }


@partial(jax.jit, static_argnames="config")
def degrade_batch(hr: jax.Array, plans: PlanArrays, config: DegradationConfig) -> jax.Array:
    """The low-quality versions of `hr`, b h w 3 uint8 both, of the same size.

    `plans` are stacked `plan_arrays` of `config`. The noise of an image depends on its plan's
    noise_seed alone, not on its place in the batch.
    """

    def one(image: jax.Array, plan: PlanArrays) -> jax.Array:
        first, second = jax.random.split(jax.random.key(plan["noise_seed"]))
        shapes = canvases(config, (image.shape[0], image.shape[1]))
        normals = (
            jax.random.normal(first, (3, *shapes[0])),
            jax.random.normal(second, (3, *shapes[1])),
        )
        return degrade_one(image, plan, normals, config)

    return jax.vmap(one)(hr, plans)


def degrade_function(
    config: DegradationConfig, sharding: jax.sharding.NamedSharding | None = None
) -> Callable[[jax.Array, PlanArrays], jax.Array]:
    """`degrade_batch` for a batch divided over devices: each degrades the images it holds."""
    degrade = partial(degrade_batch, config=config)
    if sharding is None:
        return degrade
    batch = jax.sharding.PartitionSpec(sharding.spec[0])
    return jax.jit(
        jax.shard_map(
            degrade,
            mesh=sharding.mesh,
            in_specs=(batch, batch),
            out_specs=batch,
            check_vma=False,
        )
    )


def degrade_one(
    hr: jax.Array, plan: PlanArrays, normals: tuple[jax.Array, jax.Array], config: DegradationConfig
) -> jax.Array:
    """One image, h w 3 uint8, under one plan; `normals` are the noise fields of the two stages,
    3 h w each."""
    h, w, _ = hr.shape
    full = (h, w)
    lr_size = (h // config.scale, w // config.scale)
    first_canvas, second_canvas, lr_canvas = canvases(config, full)
    first_size, second_size = ((size[0], size[1]) for size in plan["sizes"])
    kernels, modes, quality = plan["kernels"], plan["modes"], plan["quality"]

    image = hr.astype(jnp.float32).transpose(2, 0, 1) / 255  # c h w
    image = blur(image, kernels[0], full)
    image = resize(image, full, first_size, first_canvas, modes[0])
    image = add_noise(image, plan, 0, normals[0])
    image = jpeg(image, first_size, quality[0])

    image = blur(image, kernels[1], first_size)
    image = resize(image, first_size, second_size, second_canvas, modes[1])
    image = add_noise(image, plan, 1, normals[1])
    image = jnp.where(plan["jpeg_last"], image, jpeg(image, second_size, quality[1]))
    image = resize(image, second_size, lr_size, lr_canvas, modes[2])
    image = blur(image, kernels[2], lr_size)
    image = jnp.where(plan["jpeg_last"], jpeg(image, lr_size, quality[1]), image)

    image = resize(image, lr_size, full, full, modes[3])
    return jnp.clip(jnp.round(image * 255), 0, 255).astype(jnp.uint8).transpose(1, 2, 0)  # h w c


def canvases(config: DegradationConfig, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """The largest shapes after the two resizes and the shape of the result, in multiples of 16."""
    factors = (
        config.first.resize_range[1],
        config.second.resize_range[1] / config.scale,
        1 / config.scale,
    )
    return tuple((_up_to_16(size[0] * f), _up_to_16(size[1] * f)) for f in factors)


def blur(image: jax.Array, kernel: jax.Array, size: Size) -> jax.Array:
    """Correlation with the kernel, the image mirrored about the border pixels of `size`.

    One product with a banded matrix for each row of the kernel, on tiles of columns. For an FFT of
    these sizes, or a convolution with a kernel for each image, XLA's TPU compiler took minutes.
    """
    radius = kernel.shape[0] // 2
    rows, columns = (
        _mirrored(jnp.arange(-radius, canvas + radius), n)
        for canvas, n in zip(image.shape[1:], size, strict=True)
    )
    padded = image[:, rows][:, :, columns]
    h, w = image.shape[1:]
    tile = max(t for t in range(1, 129) if w % t == 0)
    windows = jnp.stack(
        [padded[:, :, x : x + tile + 2 * radius] for x in range(0, w, tile)]
    )  # k c (h + 2 radius) (tile + 2 radius)
    tap = jnp.arange(tile + 2 * radius)[:, None] - jnp.arange(tile)[None, :]

    def add_row(y: jax.Array, total: jax.Array) -> jax.Array:
        band = jnp.where((tap >= 0) & (tap <= 2 * radius), kernel[y][tap.clip(0, 2 * radius)], 0)
        rows = jax.lax.dynamic_slice_in_dim(windows, y, h, axis=2)
        return total + jnp.einsum("kchw,wx->kchx", rows, band, precision=_PRECISION)

    start = jnp.zeros((w // tile, image.shape[0], h, tile), image.dtype)
    total = jax.lax.fori_loop(0, 2 * radius + 1, add_row, start)
    return total.transpose(1, 2, 0, 3).reshape(image.shape)


def resize(
    image: jax.Array, source: Size, target: Size, canvas: tuple[int, int], mode: jax.Array
) -> jax.Array:
    """From `source` to `target` size, onto `canvas`, with the edges repeated outside `target`."""
    rows = resize_matrix(source[0], target[0], image.shape[1], canvas[0], mode)
    columns = resize_matrix(source[1], target[1], image.shape[2], canvas[1], mode)
    image = jnp.einsum("yh,chw->cyw", rows, image, precision=_PRECISION)
    return jnp.einsum("xw,cyw->cyx", columns, image, precision=_PRECISION)


def resize_matrix(
    source: jax.Array | int, target: jax.Array | int, width: int, height: int, mode: jax.Array
) -> jax.Array:
    """height x width: row i holds the weights of the source pixels in target pixel i.

    Rows from `target` on repeat the last one.
    """
    i = jnp.minimum(jnp.arange(height), target - 1)[:, None]
    j = jnp.arange(width)[None, :]

    start, stop = i * source // target, -(-(i + 1) * source // target)
    area = ((j >= start) & (j < stop)) / (stop - start)

    # The centre (i + 1/2) source / target - 1/2 in integers, so that its fraction is exact.
    numerator = (2 * i + 1) * source - target
    base = numerator // (2 * target)
    fraction = (numerator - base * 2 * target) / (2 * target)
    bicubic = mode == RESIZE_MODES.index("bicubic")
    taps = jnp.zeros((height, width))
    for offset in (-1, 0, 1, 2):
        distance = jnp.abs(offset - fraction)
        weight = jnp.where(bicubic, _cubic(distance), jnp.maximum(1 - distance, 0))
        taps += weight * (jnp.clip(base + offset, 0, source - 1) == j)
    return jnp.where(mode == RESIZE_MODES.index("area"), area, taps)


def add_noise(image: jax.Array, plan: PlanArrays, stage: int, normal: jax.Array) -> jax.Array:
    """Gaussian or Poisson noise, per channel or the same in all three, clipped to [0, 1]."""
    grey = plan["grey"][stage]
    luma = jnp.einsum("c,chw->hw", LUMA, image, precision=_PRECISION)[None]
    base = jnp.where(grey, luma, image)
    normal = jnp.where(grey, normal[:1], normal)
    noise = jnp.where(plan["poisson"][stage], poisson_noise(base, normal), normal / 255)
    return jnp.clip(image + plan["noise"][stage] * noise, 0, 1)


def poisson_noise(base: jax.Array, normal: jax.Array) -> jax.Array:
    """Counts at `peak` per unit minus the mean, where the peak is the number of grey levels in use
    rounded up to a power of two."""
    levels = jnp.round(jnp.clip(base, 0, 1) * 255)
    used = _levels_used(levels.astype(jnp.int32))
    peak = 2.0 ** jnp.ceil(jnp.log2(used.astype(jnp.float32)))
    mean = levels / 255
    return poisson_quantile(mean * peak, normal) / peak - mean


def poisson_quantile(rate: jax.Array, z: jax.Array) -> jax.Array:
    """The Poisson count at the quantile of the normal `z`.

    Below a rate of 10 exactly, by summing probabilities; from there on by the rounded
    Cornish-Fisher expansion, with the 1/12 that rounding adds taken off the variance.
    """
    s = jnp.sqrt(jnp.maximum(rate, 1) - 1 / 12)
    large = jnp.round(rate + s * z + (z * z - 1) / 6 + (z - z**3) / (72 * s))
    return jnp.where(rate < 10, _small_counts(jnp.minimum(rate, 10), z), large)


def _small_counts(rate: jax.Array, z: jax.Array) -> jax.Array:
    quantile = jax.scipy.stats.norm.cdf(z)
    none = jnp.exp(-rate)

    def add(
        count: jax.Array, state: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        probability, total, counts = state
        probability *= rate / count
        total += probability
        return probability, total, counts + (quantile > total)

    # 31 counts and more have a probability of 4e-8 at rate 10.
    start = (none, none, (quantile > none).astype(z.dtype))
    return jax.lax.fori_loop(1, 31, add, start)[2]


def _levels_used(levels: jax.Array) -> jax.Array:
    """How many of the values 0..255 occur: a bit for each, or-ed over the image, and counted."""
    bit = jnp.left_shift(jnp.uint32(1), (levels % 32).astype(jnp.uint32))
    words = [
        jax.lax.reduce(
            jnp.where(levels // 32 == word, bit, 0), np.uint32(0), jax.lax.bitwise_or, (0, 1, 2)
        )
        for word in range(8)
    ]
    return jnp.sum(jax.lax.population_count(jnp.stack(words)))


def _mirrored(index: jax.Array, n: jax.Array | int) -> jax.Array:
    period = jnp.maximum(2 * (n - 1), 1)
    folded = index % period
    return jnp.where(n > 1, jnp.minimum(folded, period - folded), 0)


def _cubic(x: jax.Array) -> jax.Array:
    """Keys' kernel at distances up to 2."""
    a = _CUBIC_A
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return jnp.where(x <= 1, near, far)


def _up_to_16(length: float) -> int:
    return -(-int(length) // 16) * 16
