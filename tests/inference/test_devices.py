"""Several devices, several images at once: the same results as one by one."""

import jax
import numpy as np
import pytest

from omgsr_jax.errors import InputError
from omgsr_jax.inference.layout import devices_named

from .conftest import photo, run_on_devices

_SIZES = ((16, 16), (16, 24), (16, 16))

_ON_FOUR_DEVICES = """
import sys, jax, numpy as np, omgsr_jax
from tests.inference.test_devices import inputs
jax.config.update("jax_default_matmul_precision", "highest")
assert jax.local_device_count() == 4
model = omgsr_jax.load(sys.argv[1])
results = model.upscale_batch(inputs(), scale=4)
np.savez(sys.argv[2], *[np.asarray(image) for image in results])
"""


@pytest.fixture
def any_device():
    before = jax.config.values["jax_default_device"]
    yield
    jax.config.update("jax_default_device", before)


@pytest.mark.usefixtures("any_device")
def test_devices_go_by_their_kind_and_number():
    assert devices_named("cpu") == devices_named("cpu:0") == jax.local_devices()
    assert jax.config.values["jax_default_device"] == jax.local_devices()[0]


@pytest.mark.parametrize("name", ["tpu", "cpu:1", "gpu:0"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(InputError, match=rf"no device {name}; expected one of cpu:0, or cpu"):
        devices_named(name)


def inputs() -> list[np.ndarray]:
    return [photo(*size, seed=i) for i, size in enumerate(_SIZES)]


@pytest.fixture(scope="module")
def one_by_one(upscaler):
    return [np.asarray(upscaler.upscale(image, scale=4)) for image in inputs()]


def _assert_same(found, expected):
    """Up to the rounding to 8 bits: other programs add in another order."""
    for image, other in zip(found, expected, strict=True):
        assert np.abs(np.asarray(image).astype(int) - other).max() <= 1


def test_four_devices_give_what_one_does(model_64, compile_cache, one_by_one, tmp_path):
    out = tmp_path / "results.npz"
    run_on_devices(4, _ON_FOUR_DEVICES, model_64, out, cache=compile_cache)
    with np.load(out) as results:
        _assert_same(list(results.values()), one_by_one)
