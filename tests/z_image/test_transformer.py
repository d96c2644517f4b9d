"""The Z-Image transformer against diffusers, at every block, read by the real converter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel

from conversion import z_image_configs
from conversion.parity.blocks import block_outputs, compare_blocks
from omgsr_jax.models import z_image
from omgsr_jax.models.z_image import ZImage, ZImageConfig
from omgsr_jax.weights import variables
from tests.helpers import assert_blocks_agree, read_network, relative_error

from .conftest import PRESET

SIGMA = 0.3


@pytest.fixture(scope="module")
def theirs(z_base) -> ZImageTransformer2DModel:
    return ZImageTransformer2DModel.from_pretrained(z_base / "transformer").eval()


def _inputs(size: tuple[int, int], tokens: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(1)
    shapes = ((2, *size, 16), (2, tokens, 48))
    return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def _run_torch(theirs, z, context) -> np.ndarray:
    """What ZImagePipeline does around the transformer, for latents b h w c."""
    timestep = torch.full((len(z),), 1000 * SIGMA)
    frames = list(torch.tensor(z).permute(0, 3, 1, 2).unsqueeze(2))
    with torch.no_grad():
        out = theirs(frames, (1000 - timestep) / 1000, list(torch.tensor(context))).sample
    return -torch.stack(out).squeeze(2).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("size", "tokens", "at_least"),
    [
        # In multiples of 32: nothing is filled up.
        pytest.param((16, 16), 32, 53, id="square", marks=pytest.mark.slow),
        pytest.param((4, 14), 5, 50, id="rectangular"),
    ],
)
def test_every_block_agrees_with_diffusers(z_base, theirs, size, tokens, at_least):
    apart = read_network("z_image", z_base / "transformer", scan=False)
    z, context = _inputs(size, tokens)
    result, blocks = block_outputs(apart, lambda m, *args: m(args[0], SIGMA, args[1]), z, context)
    outputs = []
    errors = compare_blocks(blocks, theirs, lambda: outputs.append(_run_torch(theirs, z, context)))
    assert_blocks_agree(errors, tolerance=1e-5, at_least=at_least)
    assert relative_error(result, outputs[0]) <= 1e-5

    stacked = read_network("z_image", z_base / "transformer")
    assert relative_error(jax.jit(stacked)(z, SIGMA, context), outputs[0]) <= 1e-5


def test_tokens_turn_as_in_diffusers(theirs):
    """Far out too, where an angle in fp32 has few digits left."""
    h, w, tokens = 90, 6, 600
    latents, context = torch.zeros(16, 1, h, w), torch.zeros(tokens, 48)
    _, _, _, image_ids, prompt_ids, _, _ = theirs.patchify_and_embed([latents], [context], 2, 1)
    config = z_image_configs.z_image_config(PRESET.backbone, "here")
    ours = z_image.rotations(tokens, (h, w), config)
    for turn, (ids,) in zip(ours, (image_ids, prompt_ids), strict=True):
        expected = theirs.rope_embedder(ids[: turn.shape[1]])
        assert np.abs(turn[0] - expected.real.numpy()).max() <= 2e-7
        assert np.abs(turn[1] - expected.imag.numpy()).max() <= 2e-7


def test_packing_is_that_of_diffusers(theirs):
    z, _ = _inputs((4, 6), 1)
    patches, _, _ = theirs._patchify_image(torch.tensor(z[0]).permute(2, 0, 1)[:, None], 2, 1)
    np.testing.assert_array_equal(z_image.pack(jnp.asarray(z))[0], patches.numpy())
    np.testing.assert_array_equal(z_image.unpack(z_image.pack(jnp.asarray(z)), (4, 6)), z)


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0, 2.7])
def test_the_schedule_is_shifted_as_by_its_scheduler(shift):
    config = {"shift": shift, "num_train_timesteps": 1000, "use_dynamic_shifting": False}
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    process = z_image_configs.flow_matching(config, "here")
    scheduler.set_timesteps(sigmas=np.linspace(0, 1, 1000)[1:].tolist())
    sigmas = process.sigma(np.arange(1, 1000))
    np.testing.assert_allclose(sigmas, scheduler.sigmas[:-1].numpy(), rtol=1e-6)
    written = z_image_configs.flow_matching_json(process)
    assert written["shift"] == shift
    assert z_image_configs.flow_matching(written, "again") == process


def test_the_full_size_has_as_many_weights_as_z_image():
    with torch.device("meta"):
        theirs = ZImageTransformer2DModel()
    ours = variables(ZImage(ZImageConfig(), rngs=None))
    size = sum(int(np.prod(leaf.shape)) for leaf in ours.values())
    assert size == sum(weight.numel() for weight in theirs.parameters()) == 6_154_908_736
