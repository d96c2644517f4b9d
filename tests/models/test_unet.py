"""The UNet against diffusers, at every block, on random checkpoints read by the real converter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from conversion.parity.arrays import to_nchw, to_nhwc
from conversion.parity.blocks import block_outputs, compare_blocks
from conversion.parity.random_checkpoints import PRESETS, enliven
from tests.helpers import assert_blocks_agree, read_network, relative_error

_SD2 = PRESETS["tiny"].backbone | {"layers_per_block": 2}
# Stable Diffusion 1.5: convolutions around the transformers, one number of heads for all levels.
_SD1 = _SD2 | {"use_linear_projection": False, "attention_head_dim": 4, "layers_per_block": 1}
# Deeper transformers, no attention at the highest resolution, other timestep sinusoids.
_OTHER = _SD2 | {
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 1],
    "layers_per_block": 1,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}


_CONFIGS = {"sd2": _SD2, "sd1": _SD1, "other": _OTHER}


@pytest.fixture(scope="module")
def unets(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unet")
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(**_CONFIGS[request.param]).eval()
    enliven(theirs)
    theirs.save_pretrained(folder)
    return read_network("unet", folder), theirs


@pytest.mark.parametrize(
    ("unets", "size"),
    [
        pytest.param("sd2", (8, 24), marks=pytest.mark.slow),
        ("sd2", (11, 14)),
        ("sd1", (11, 14)),
        ("other", (8, 24)),
    ],
    indirect=["unets"],
)
def test_every_block_agrees_with_diffusers(unets, size):
    ours, theirs = unets
    rng = np.random.default_rng(1)
    z = rng.standard_normal((2, *size, 4), np.float32)
    context = rng.standard_normal((2, 7, 48), np.float32)
    t = 195

    result, blocks = block_outputs(ours, lambda m, z, c: m(z, t, c), z, context)

    outputs = []

    def run():
        prediction = theirs(to_nchw(z), t, encoder_hidden_states=torch.from_numpy(context))
        outputs.append(prediction.sample)

    errors = compare_blocks(blocks, theirs, run)
    assert_blocks_agree(errors, tolerance=1e-5, at_least=100)
    assert relative_error(result, to_nhwc(outputs[0])) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("unets", ["sd2"], indirect=True)
def test_each_example_may_have_its_own_timestep(unets):
    ours, _ = unets
    z = jnp.ones((2, 8, 8, 4))
    context = jnp.ones((2, 7, 48))
    run = jax.jit(ours)
    both = run(z, jnp.array([10, 900]), context)
    np.testing.assert_allclose(both[0], run(z, jnp.array([10, 10]), context)[0], atol=1e-5)
    np.testing.assert_allclose(both[1], run(z, jnp.array([900, 900]), context)[1], atol=1e-5)
    assert relative_error(both[0], both[1]) > 1e-3
