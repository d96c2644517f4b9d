"""The function from pixels to pixels: pure, exact in strips, on shared canvases and by rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import omgsr_jax
from omgsr_jax.errors import InputError
from omgsr_jax.inference import strips
from omgsr_jax.inference.options import Options
from omgsr_jax.inference.pictures import from_array
from omgsr_jax.inference.sizes import Enlargement
from omgsr_jax.models.vae import VAE, VAEConfig

from ..helpers import drawn, relative_error
from .conftest import photo, restored, run_on_devices


@pytest.mark.parametrize("scale", [2.5, 8])
def test_the_function_is_upscale_bit_for_bit(upscaler, scale):
    image = photo(18, 26)
    function = upscaler.function((18, 26), scale=scale)
    (found,) = np.asarray(function(jnp.asarray(image[None])))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.asarray(upscaler.upscale(image, scale=scale)))


def test_the_function_is_pure_and_takes_the_weights(upscaler):
    function = upscaler.function((16, 16))
    images = jnp.asarray(photo(16, 16)[None])
    traced = jax.jit(function.apply).trace(function.weights, images)
    text = str(traced.jaxpr)
    assert "callback" not in text
    weights = sum(leaf.size for leaf in jax.tree.leaves(function.weights))
    constants = sum(np.size(constant) for constant in traced.jaxpr.consts)
    assert constants < 0.05 * weights
    doubled = jax.tree.map(lambda leaf: 2 * leaf, function.weights)
    compiled = traced.lower().compile()
    found = compiled(function.weights, images)
    np.testing.assert_array_equal(found, function(images))
    assert (np.asarray(compiled(doubled, images)) != np.asarray(found)).any()


def test_a_batch_moves_up_once_and_down_once(upscaler, monkeypatch):
    pictures = [from_array(photo(16, 16, seed=i)) for i in range(2)]
    options = Options(Enlargement(scale=4), seed=3)
    upscaler.restore(pictures, options)  # compiles
    moves = []
    for name in ("device_put", "device_get"):
        move = getattr(jax, name)
        monkeypatch.setattr(jax, name, lambda *a, n=name, m=move: (moves.append(n), m(*a))[1])
    with jax.transfer_guard("disallow"):
        upscaler.restore(pictures[:1], options)
    assert moves == ["device_put", "device_get"]


def test_a_function_has_no_form_with_quirks(upscaler):
    with pytest.raises(InputError, match="with quirks"):
        upscaler.with_quirks("v2").function((16, 16))


@pytest.mark.parametrize("seed", [None, 5], ids=["mode", "sampled"])
def test_a_shared_canvas_gives_what_an_image_gets_alone(sharing, upscaler, seed):
    """The noise for a seed is the same on every canvas, too."""
    together, image = sharing
    alone = upscaler.upscale(image, seed=seed)
    difference = np.abs(np.asarray(together.upscale(image, seed=seed)).astype(int) - alone)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.fixture(scope="module")
def sharing(model_64, upscaler) -> tuple[omgsr_jax.Upscaler, np.ndarray]:
    """A model that has planned for six sizes, and an image that shares a canvas there alone."""
    sizes = [(9, 13), (18, 26), (17, 25), (24, 16), (16, 16), (23, 17)]
    model, options = omgsr_jax.load(model_64), Options(Enlargement(scale=4))
    model.plan(sizes, options)
    canvases = {size: model.canvas(size, options)[0] for size in sizes}
    assert len(set(canvases.values())) <= 4
    size, *others = (size for size in sizes if canvases[size].shared)
    assert others
    upscaler.steps(size)
    return model, photo(*size)


def test_strips_give_what_the_whole_gives(model_64, upscaler, compile_cache):
    x_l = photo(136, 72)[None].astype(np.float32) / 127.5 - 1
    in_strips = omgsr_jax.load(model_64, strips=24)
    (how,) = in_strips.steps((136, 72), scale=1)
    assert how.canvas.strips == 6
    assert relative_error(restored(in_strips, x_l), restored(upscaler, x_l)) <= 1e-5


@pytest.fixture(scope="module")
def vae() -> VAE:
    """With biases and scales that are not 0 and 1, as trained ones are not."""
    return drawn(VAE(VAEConfig(block_out_channels=(16, 32, 32), norm_num_groups=8), rngs=None))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "canvas", "strip"),
    [
        ((96, 64), (96, 64), 64 * 16),
        ((100, 52), (128, 64), 64 * 24),
    ],
)
def test_the_vae_is_the_same_in_strips_and_in_boxes(vae, size, canvas, strip):
    (h, w), rng = size, np.random.default_rng(1)
    x, z = rng.uniform(-1, 1, (2, h, w, 3)), rng.normal(size=(2, h // 4, w // 4, 4))
    box = None if size == canvas else jnp.array([size] * 2)
    walk = strips.walk(vae, canvas, box, strip)
    on_canvas = np.full((2, *canvas, 3), 0.3, np.float32)
    on_canvas[:, :h, :w] = x
    found = jax.jit(walk.encode)(on_canvas).mean[:, : h // 4, : w // 4]
    assert relative_error(found, jax.jit(vae.encode)(x.astype(np.float32)).mean) <= 1e-5
    latents = np.full((2, canvas[0] // 4, canvas[1] // 4, 4), 5, np.float32)
    latents[:, : h // 4, : w // 4] = z
    found = jax.jit(walk.decode)(latents)[:, :h, :w]
    assert relative_error(found, jax.jit(vae.decode)(z.astype(np.float32))) <= 1e-5


_BY_ROWS = """
import sys, jax, numpy as np, omgsr_jax
from tests.inference.conftest import restored
from tests.inference.test_restore import enlarged
jax.config.update("jax_default_matmul_precision", "highest")
assert jax.local_device_count() == 8
model = omgsr_jax.load(sys.argv[1])
(how,) = model.steps((192, 136), scale=1)
assert how.canvas.by_rows
np.savez(sys.argv[2], restored(model, enlarged()))
"""


def enlarged() -> np.ndarray:
    return photo(192, 136)[None].astype(np.float32) / 127.5 - 1


@pytest.mark.slow
def test_eight_devices_by_rows_give_what_one_gives(model_64, upscaler, compile_cache, tmp_path):
    out = tmp_path / "rows.npz"
    run_on_devices(8, _BY_ROWS, model_64, out, cache=compile_cache)
    with np.load(out) as found:
        assert relative_error(found["arr_0"], restored(upscaler, enlarged())) <= 1e-5
