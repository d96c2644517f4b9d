"""The VAE against diffusers, at every block: Stable Diffusion's and FLUX's kinds."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from conversion.parity.arrays import to_nchw, to_nhwc
from conversion.parity.blocks import block_outputs, compare_blocks
from conversion.parity.random_checkpoints import PRESETS, enliven
from tests.helpers import assert_blocks_agree, images, read_network, relative_error

_SD = PRESETS["tiny"].vae | {"layers_per_block": 2}
_FLUX = _SD | {
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
}


@pytest.fixture(scope="module", params=[_SD, _FLUX], ids=["sd", "flux"])
def vaes(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    theirs = AutoencoderKL(**request.param).eval()
    enliven(theirs)
    theirs.save_pretrained(folder)
    return read_network("vae", folder), theirs


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_encoder_agrees_with_diffusers_at_every_block(vaes, size):
    ours, theirs = vaes
    x = images(1, 2, *size, 3)
    posterior, blocks = block_outputs(ours, lambda m, x: m.encode(x), x)
    found = []
    errors = compare_blocks(
        blocks, theirs, lambda: found.append(theirs.encode(to_nchw(x)).latent_dist)
    )
    assert_blocks_agree(errors, tolerance=1e-5, at_least=35)
    assert relative_error(posterior.mode(), to_nhwc(found[0].mode())) <= 1e-5
    assert relative_error(posterior.logvar, to_nhwc(found[0].logvar)) <= 1e-5


@pytest.mark.parametrize("size", [(8, 8), (6, 11)])
def test_decoder_agrees_with_diffusers_at_every_block(vaes, size):
    ours, theirs = vaes
    channels = ours.config.latent_channels
    z = np.random.default_rng(2).standard_normal((2, *size, channels), np.float32)
    image, blocks = block_outputs(ours, lambda m, z: m.decode(z), z)
    found = []
    errors = compare_blocks(blocks, theirs, lambda: found.append(theirs.decode(to_nchw(z)).sample))
    assert_blocks_agree(errors, tolerance=1e-5, at_least=45)
    assert relative_error(image, to_nhwc(found[0])) <= 1e-5


def test_unscaling_undoes_scaling(vaes):
    ours, theirs = vaes
    z = np.random.default_rng(3).standard_normal((1, 4, 4, 4), np.float32)
    scaled = (z - (theirs.config.shift_factor or 0)) * theirs.config.scaling_factor
    np.testing.assert_allclose(ours.scale(z), scaled, rtol=1e-6)
    np.testing.assert_allclose(ours.unscale(ours.scale(z)), z, atol=1e-6)
