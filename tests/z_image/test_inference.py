"""Z-Image through the upscaler: any size, in 8 bits, its weights divided; and trained."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, AxisType

import omgsr_jax
from omgsr_jax import converted
from omgsr_jax.inference import layout
from omgsr_jax.inference.prepare import for_inference
from omgsr_jax.models import int8
from omgsr_jax.models.layers import Linear
from omgsr_jax.models.z_image import Z_IMAGE_TARGETS, ZImage, ZImageConfig
from omgsr_jax.training.config import DEFAULT_RULES
from omgsr_jax.training.run import Run
from omgsr_jax.weights import specs_by_name, variables
from tests.helpers import relative_error
from tests.inference.conftest import photo
from tests.training.runs import smallest

_DIVIDED = {
    "attention.to_q": (None, None, "tensor"),
    "attention.to_out.0": (None, "tensor", None),
    "feed_forward.w1": (None, None, "tensor"),
    "feed_forward.w2": (None, "tensor", None),
    "feed_forward.w3": (None, None, "tensor"),
}


@pytest.mark.slow
def test_any_size_comes_out_exactly(z_model):
    result = omgsr_jax.load(z_model).upscale(photo(17, 19), scale=3)
    assert result.size == (57, 51)  # neither a multiple of 8


def test_int8_quantises_all_blocks(z_model):
    model = for_inference(converted.read(z_model), "int8")
    backbone = model.backbone
    for stack in (backbone.noise_refiner, backbone.context_refiner, backbone.layers):
        kinds = {type(part) for _, part in nnx.iter_modules(stack)}
        assert int8.Int8Linear in kinds
        assert Linear not in kinds
    latents = jax.ShapeDtypeStruct((1, 8, 8, 16), np.float32)
    assert jax.eval_shape(model.predict, latents).dtype == np.dtype("bfloat16")


@pytest.mark.slow
def test_little_is_lost_in_8_bits(z_model):
    z = np.random.default_rng(0).standard_normal((1, 8, 8, 16)).astype(np.float32)
    outputs = []
    for precision in ("bf16", "int8"):
        model = for_inference(converted.read(z_model), precision)
        outputs.append(jax.jit(model.predict)(z).astype(np.float32))
    assert 1e-4 < relative_error(outputs[1], outputs[0]) <= 3e-2


def test_weights_of_all_blocks_are_divided_between_devices():
    mesh = AbstractMesh((1, 1, 2), ("data", "spatial", "tensor"), axis_types=(AxisType.Auto,) * 3)
    shapes = {
        f"backbone.{name}": leaf.shape
        for name, leaf in variables(ZImage(ZImageConfig(), rngs=None)).items()
    }
    specs = specs_by_name(shapes, layout.RULES, mesh)
    for stack in ("noise_refiner", "context_refiner", "layers"):
        for layer, expected in _DIVIDED.items():
            assert tuple(specs[f"backbone.{stack}.each.{layer}.kernel"]) == expected
    # Heads and hidden features are divided in training too.
    trained = AbstractMesh((1, 4, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    specs = specs_by_name(shapes, DEFAULT_RULES, trained)
    up, down = (specs[f"backbone.layers.each.feed_forward.{w}.kernel"] for w in ("w3", "w2"))
    assert (tuple(up), tuple(down)) == ((None, "fsdp", "tensor"), (None, "tensor", "fsdp"))


def _run() -> Run:
    config = smallest(model={"architecture": "smallest-z-image", "remat": True})
    return Run.of(config, jax.devices()[:1])


def test_new_adapters_are_on_the_layers_of_all_blocks():
    blueprint = _run().blueprint
    assert blueprint.generator_config.backbone_lora.targets == Z_IMAGE_TARGETS
    name = "backbone.layers.each.feed_forward.w2.lora_A.kernel"
    assert blueprint.adapters[name].shape == (2, 42, 2)  # as deep as the stack
