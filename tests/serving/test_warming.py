"""A model whose canvases are settled compiles nothing more, whatever it is asked for."""

import io
import itertools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

import omgsr_jax
from omgsr_jax.errors import InputError
from omgsr_jax.inference import colour, images
from omgsr_jax.inference.canvases import Canvases, Stage
from omgsr_jax.inference.options import COLORS, Options
from omgsr_jax.inference.passes import Machine, Passes
from omgsr_jax.inference.pictures import from_array
from omgsr_jax.inference.sizes import Enlargement
from omgsr_jax.serving.limits import Limits
from omgsr_jax.serving.metrics import compilations
from tests.inference.conftest import canvas_of, photo, stage_of
from tests.stand_in import write_stand_in


def test_sides_double_up_to_the_largest():
    assert Limits(largest=100).sizes(32) == [
        *[(32, 32), (32, 64), (64, 32), (64, 64), (64, 100), (100, 64), (100, 100)]
    ]
    assert max(Limits().sizes(64)) == (256, 256)
    with pytest.raises(InputError, match="--largest must be at least 64"):
        Limits(largest=63).sizes(64)


def test_settled_canvases_take_what_fits_and_no_others_are_made():
    canvases = Canvases(canvas_of)
    settled = canvases.settle(Stage(size, size, size) for size in ((64, 64), (64, 128), (128, 128)))
    found = {}
    for height, width in ((64, 64), (60, 50), (64, 65), (70, 20), (128, 100)):
        found[height, width] = canvases.place(stage_of(height, width)).extent.process
    assert list(found.values()) == [(64, 64), (64, 64), (64, 128), (128, 128), (128, 128)]
    canvases.plan([stage_of(16, 16), stage_of(200, 200)])
    assert all(canvases.place(stage_of(side, 40)) in settled for side in range(8, 129, 8))
    with pytest.raises(InputError, match="at most 128 x 128 px are taken here; ask for less"):
        canvases.place(stage_of(129, 64))


@pytest.mark.parametrize(
    ("groups", "most", "sizes", "of_nine"),
    [
        (1, 1, [1], [1] * 9),
        (1, 4, [1, 2, 4], [4, 4, 1]),
        (1, 6, [1, 2, 4, 6], [6, 2, 1]),
        (2, 2, [2, 4], [4, 4, 2]),
    ],
)
def test_batches_are_full_as_far_as_possible(groups, most, sizes, of_nine):
    vae, machine = SimpleNamespace(downsampling=8), Machine(groups, most, is_cpu=True)
    passes = Passes(64, 8, vae, machine, strips="off", holds=lambda size: True)
    settled = passes.settle([(64, 64)])
    assert [how.batch for how in settled] == sizes
    assert [how.batch for how in passes.divided(settled[-1], 9)] == of_nine
    assert set(passes.divided(settled[-1], 9)) <= set(settled)


def test_colours_by_their_number_are_those_by_their_name():
    rng = np.random.default_rng(0)
    image, source = rng.uniform(0, 1, (2, 1, 9, 7, 3)).astype(np.float32)
    given = image, source, np.array([[7, 6]])
    by_number = jax.jit(lambda x, y, sizes, number: colour.align(x, y, number, sizes))
    for number, name in enumerate(COLORS):
        by_name = jax.jit(lambda x, y, sizes, name=name: colour.align(x, y, name, sizes))
        np.testing.assert_allclose(by_number(*given, number), by_name(*given), atol=1e-6)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_stand_in(tmp_path_factory.mktemp("model") / "small", process_size=64)


@pytest.fixture(scope="module")
def warm(small, compile_cache) -> omgsr_jax.Upscaler:
    """A canvas of several tiles."""
    model = omgsr_jax.load(small)
    model.warm([(64, 96)])
    return model


def ask(model: omgsr_jax.Upscaler, picture, color=None, seed=None, **enlargement):
    (result,) = model.restore([picture], Options(Enlargement(**enlargement), color, seed))
    return result.picture


def depths() -> list[np.ndarray]:
    """Grey, with alpha, in 8 and 16 bits."""
    eight = [photo(15, 17, channels) for channels in (1, 2, 3, 4)]
    return [*eight, *[(one.astype(np.uint16) << 8) + 7 for one in eight]]


@pytest.mark.slow
def test_nothing_is_compiled_for_what_is_taken(warm):
    counted = compilations()
    before = counted.count
    for array in depths():
        result = ask(warm, from_array(array), scale=2)
        assert (result.pixels().dtype, result.pixels().shape) == (
            array.dtype,
            (30, 34, array.shape[-1]),
        )
    for color, seed in itertools.product((None, *COLORS), (None, 0, 5)):
        ask(warm, from_array(photo()), color, seed, scale=4)
    for enlargement in ({"scale": 1}, {"scale": 3.3}, {"scale": 6}, {"longest_side": 9}):
        ask(warm, from_array(photo(10, 13)), **enlargement)
    ask(warm, from_array(photo(20, 24)), size=(50, 72))
    assert counted.count == before


@pytest.mark.slow
def test_what_fits_no_canvas_is_refused(warm):
    for picture, scale in ((photo(17, 16), 4), (photo(16, 40), 4), (photo(65, 8), 1)):
        with pytest.raises(InputError, match="at most 96 x 64 px are taken here; ask for less"):
            ask(warm, from_array(picture), scale=scale)


@pytest.mark.slow
def test_results_are_those_of_a_model_that_compiles_what_it_needs(warm, small):
    """By another way through the VAE, to the last bit but for rounding."""
    other = omgsr_jax.load(small)
    deep = from_array((photo(16, 16, 4).astype(np.uint16) << 8) + 7)
    for picture, color, seed in ((from_array(photo(14, 20)), None, None), (deep, "lab", 3)):
        found, expected = (
            ask(model, picture, color, seed, scale=4).pixels().astype(int)
            for model in (warm, other)
        )
        assert np.ptp(expected) > 50
        assert np.abs(found - expected).max() <= (1 if picture.bits == 8 else 64)


@pytest.mark.slow
def test_images_with_options_of_their_own_are_restored_as_if_alone(warm):
    pictures = [from_array(photo(*size)) for size in ((16, 16), (14, 20), (16, 24), (9, 9))]
    asked = [
        Options(Enlargement(scale=4)),
        Options(Enlargement(scale=2), "lab"),
        Options(Enlargement(size=(30, 40)), None, 3),
        Options(Enlargement(scale=6)),
    ]
    together = warm.restore(pictures, asked)
    for picture, options, result in zip(pictures, asked, together, strict=True):
        (alone,) = warm.restore([picture], options)
        np.testing.assert_array_equal(result.picture.values, alone.picture.values)


@pytest.mark.slow
def test_batches_and_one_image_have_programs_of_their_own(small, compile_cache):
    model = omgsr_jax.load(small, batch=3)
    model.warm([(64, 64), (64, 96), (96, 64)])
    counted = compilations()
    before = counted.count
    for count in range(1, 6):
        pictures = [from_array(photo(12 + number, 16)) for number in range(count)]
        assert len(model.restore(pictures, Options(Enlargement(scale=4)))) == count
    assert counted.count == before


@pytest.mark.slow
def test_a_service_around_a_real_model_gives_its_results(warm, serving):
    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, "PNG")
    with serving(prepare=lambda: warm) as client:
        client.app.state.service.limits = Limits(largest=96)
        response = client.post("/v1/upscale?scale=4&seed=1", content=buffer.getvalue())
    assert response.status_code == 200, response.text
    expected = ask(warm, from_array(photo()), None, 1, scale=4)
    assert response.content == images.encode(expected, ".png")[0]
