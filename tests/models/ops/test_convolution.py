"""Every way to convolve equals the direct one, and is taken where it pays."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omgsr_jax.models.layers import Conv
from omgsr_jax.models.ops import (
    cpu_convolution,
    direct,
    small_winograd,
    tpu_strips,
    winograd,
)
from omgsr_jax.models.ops.convolution import convolve, convolve_doubled, doubled
from tests.helpers import relative_error


@pytest.fixture(autouse=True)
def default_precision():
    """Not the highest, which the other tests ask for."""
    with jax.default_matmul_precision("default"):
        yield


def _operands(b=2, h=64, w=36, c=96, o=112):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((b, h, w, c), np.float32)
    return x, rng.standard_normal((3, 3, c, o), np.float32) / 29


def _exact(x, kernel):
    """Nine shifted products in float64."""
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    _, h, w, _ = x.shape
    return sum(padded[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))


_FEW_CHANNELS, _LARGE_MAP = {}, {"b": 5, "c": 128, "o": 128}
_SMALL_MAP, _ODD_TILES = {"c": 128, "o": 144}, {"b": 4, "w": 38}
_WINOGRADS = pytest.mark.parametrize(
    ("size", "winograd_of", "limit"),
    [
        (_FEW_CHANNELS, winograd, 1.5e-6),
        (_LARGE_MAP, winograd, 1.5e-6),
        (_SMALL_MAP, small_winograd, 0.8e-6),
        (_ODD_TILES, small_winograd, 0.8e-6),
    ],
)


@_WINOGRADS
def test_equals_the_direct_convolution(size, winograd_of, limit):
    x, kernel = _operands(**size)
    assert cpu_convolution.faster(x, kernel) is winograd_of.convolve
    assert relative_error(winograd_of.convolve(x, kernel), _exact(x, kernel)) <= limit


@_WINOGRADS
def test_rows_with_their_halo_give_what_they_give_within_the_image(size, winograd_of, limit):
    x, kernel = _operands(**size)
    rows, padding = x[:, 5:63], ((0, 0), (1, 1))  # 56 rows and their neighbours
    way = cpu_convolution.way(jnp.asarray(rows), jnp.asarray(kernel), padding, 1)
    assert way.func is winograd_of.convolve
    assert relative_error(way(rows, kernel), _exact(x, kernel)[:, 6:62]) <= limit


@pytest.mark.parametrize("strip", [2**10, 2**14, 2**22])
def test_strips_join_without_a_trace(strip, monkeypatch):
    """From one row of tiles at a time to all of them."""
    x, kernel = _operands()
    whole = winograd.convolve.__wrapped__(x, kernel)
    monkeypatch.setattr(winograd, "_STRIP", strip)
    assert relative_error(winograd.convolve.__wrapped__(x, kernel), whole) <= 1e-6


@pytest.mark.parametrize(
    "size",
    [
        _SMALL_MAP,  # by Winograd's algorithm, and so the gradient by x
        _LARGE_MAP,
        {"o": 4},  # an adapter's A, whose gradient is one product
        {"c": 4, "o": 32},
        {"b": 1, "h": 8, "w": 12, "c": 512, "o": 520},  # one product
        {"h": 17, "w": 9, "c": 40, "o": 48},  # XLA's own
    ],
)
def test_gradients_equal_those_of_the_direct_convolution(size):
    x, kernel = _operands(**size)
    weights = np.random.default_rng(1).standard_normal((*x.shape[:3], kernel.shape[-1]), np.float32)
    ours, expected = (
        jax.grad(lambda *a, f=f: jnp.sum(f(*a) * weights), argnums=(0, 1))(x, kernel)
        for f in (cpu_convolution.convolve, direct.convolve)
    )
    for gradient, other in zip(ours, expected, strict=True):
        assert relative_error(gradient, other) <= 3e-6


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("o", [4, 40])
def test_gradients_of_halving_equal_those_of_the_direct_convolution(before, o):
    """As the VAE pads, and as the UNet does; an adapter's kernel and a wide one."""
    x, kernel = _operands(h=8, w=12, c=6, o=o)
    weights = np.random.default_rng(1).standard_normal((2, 4, 6, o), np.float32)

    def portable(x, kernel):
        return direct.convolve(x, kernel, ((before, 1),) * 2, stride=2)

    ours, expected = (
        jax.grad(lambda *a, f=f: jnp.sum(f(*a) * weights), argnums=(0, 1))(x, kernel)
        for f in (partial(cpu_convolution.halve, before), portable)
    )
    for gradient, other in zip(ours, expected, strict=True):
        assert relative_error(gradient, other) <= 1e-6


_PHASES = {"h": 6, "w": 10, "c": 8, "o": 12}


@pytest.mark.parametrize("size", [_PHASES, {"b": 1, "h": 16, "w": 16, "c": 32, "o": 40}])
def test_convolving_doubled_pixels_equals_doubling_and_convolving(size):
    """By phases, and where Winograd's algorithm is faster still."""
    x, kernel = _operands(**size)
    weights = np.random.default_rng(1).standard_normal(
        (*doubled(x[..., :1]).shape[:3], kernel.shape[-1]), np.float32
    )
    assert relative_error(convolve_doubled(x, kernel), _exact(doubled(x), kernel)) <= 1.5e-6
    ours, expected = (
        jax.grad(lambda *a, f=f: jnp.sum(f(*a) * weights), argnums=(0, 1))(x, kernel)
        for f in (convolve_doubled, lambda x, kernel: direct.convolve(doubled(x), kernel))
    )
    for gradient, other in zip(ours, expected, strict=True):
        assert relative_error(gradient, other) <= 3e-6


def test_phases_are_for_cpus_only():
    lowered = _lowered(convolve_doubled, *_operands(**_PHASES))
    count = {platform: text.count("stablehlo.convolution") for platform, text in lowered.items()}
    assert count == {"cpu": 4, "cuda": 1, "tpu": 1}


def _lowered(function, *operands):
    traced = jax.jit(function).trace(*operands)
    return {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }


_BY_STRIPS = [
    (3, 1, ((1, 1), (1, 1))),
    (5, 1, ((2, 2), (2, 2))),
    (1, 1, ((0, 0), (0, 0))),  # a shortcut
    (3, 2, ((0, 1), (0, 1))),  # halved as in the VAE
    (3, 2, ((1, 1), (1, 1))),  # halved as in the UNet
]


@pytest.mark.parametrize(("size", "stride", "padding"), _BY_STRIPS)
def test_strips_beside_each_other_equal_the_whole_map(size, stride, padding):
    x, kernel, bias = _map_and_kernel(size)
    assert tpu_strips.takes(x, kernel, padding, stride)
    ours = tpu_strips.convolve(x, kernel, bias, padding=padding, stride=stride)
    whole = direct.convolve(x, kernel, padding, stride) + bias
    assert relative_error(ours, whole) <= 1e-6


def test_doubled_pixels_by_strips_equal_doubling_and_convolving():
    x, kernel, bias = _map_and_kernel(3)
    ours = tpu_strips.convolve_doubled(x, kernel, bias)
    assert relative_error(ours, _exact(doubled(x), kernel) + bias) <= 1e-6


@pytest.mark.parametrize(
    ("rows", "size", "stride", "padding", "because"),
    [
        (33, 3, 1, ((1, 1), (1, 1)), "rows that eight strips do not divide"),
        (8, 3, 1, ((1, 1), (1, 1)), "strips of one row"),
        (24, 3, 2, ((1, 1), (1, 1)), "strips of three rows, to be halved"),
        (16, 7, 1, ((3, 3), (3, 3)), "a window beyond the next strip"),
        (32, 3, 1, ((0, 0), (0, 0)), "fewer rows out than in"),
    ],
)
def test_strips_pass_over_what_they_are_not_for(rows, size, stride, padding, because):
    x, kernel, _ = _map_and_kernel(size, rows)
    assert not tpu_strips.takes(x, kernel, padding, stride), because


def test_doubled_pixels_go_by_phases_where_they_are_more_than_weights():
    x, kernel, _ = _map_and_kernel(3)
    assert tpu_strips.takes_doubled(x, kernel)
    assert not tpu_strips.takes_doubled(x, np.zeros((3, 3, 6, 128), np.float32))


def test_strips_are_for_tpus_only():
    x, kernel, bias = _map_and_kernel(3)
    for function in (partial(convolve, padding=((1, 1), (1, 1))), convolve_doubled):
        lowered = _lowered(function, x, kernel, bias)
        assert {p for p, text in lowered.items() if "tensor<2x8x4x12x6xf32>" in text} == {"tpu"}


def _map_and_kernel(size, rows=32):
    rng = np.random.default_rng(0)
    shapes = (2, rows, 12, 6), (size, size, 6, 5), (5,)
    return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def test_patches_equal_the_direct_convolution():
    x, kernel = _operands(b=1, h=8, w=12, c=512, o=520)
    assert cpu_convolution.faster(x, kernel) is cpu_convolution.through_patches
    y = cpu_convolution.through_patches(jnp.asarray(x), kernel)
    assert relative_error(y, _exact(x, kernel)) <= 1e-6


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"h": 65}, "rows that tiles do not divide"),
        ({"w": 35}, "columns that tiles do not divide"),
        ({"c": 31}, "few channels"),
        ({"b": 1, "h": 28}, "few pixels"),
        ({"b": 1, "h": 8, "w": 8, "c": 31}, "few pixels and few channels"),
    ],
)
def test_passes_over_what_it_is_not_for(change, because):
    assert cpu_convolution.faster(*_operands(**change)) is None, because


def test_takes_whole_3x3_kernels_in_fp32_only():
    x, kernel = _operands()
    assert cpu_convolution.takes(x, kernel)
    assert not cpu_convolution.takes(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert not cpu_convolution.takes(x, kernel[:1])
    assert not cpu_convolution.takes(x, kernel[:, :, ::2]), "two groups"


def test_winograd_gives_way_where_the_highest_precision_is_asked_for():
    operands = _operands()
    assert cpu_convolution.faster(*operands)
    with jax.default_matmul_precision("highest"):
        assert cpu_convolution.faster(*operands) is None


def test_layers_use_it_on_cpus_only():
    x, _ = _operands()
    graph, state = nnx.split(Conv(96, 112, 3, padding=1, rngs=nnx.Rngs(0)))
    traced = jax.jit(lambda state, x: nnx.merge(graph, state)(x)).trace(state, x)
    lowered = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda")
    }
    assert "stablehlo.convolution" not in lowered["cpu"]
    assert "stablehlo.convolution" in lowered["cuda"]
