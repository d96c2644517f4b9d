"""Generators that a run can start from with random weights: to try things out and to compile."""

from ..generator import OMGSRConfig
from ..models.unet import UNetConfig
from ..models.vae import VAEConfig
from ..process import DDPM

ARCHITECTURES: dict[str, OMGSRConfig] = {
    # SD-Turbo and SD2.1-base: 866 M parameters in the UNet, 84 M in the VAE.
    "sd": OMGSRConfig(VAEConfig(), UNetConfig(), DDPM(), 195, {"context": (77, 1024)}),
    # Trains on a CPU in minutes: latents of half the image's size.
    "tiny": OMGSRConfig(
        VAEConfig(block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
                  latent_channels=8, mid_block_add_attention=False, scaling_factor=1.0),
        UNetConfig(in_channels=8, out_channels=8, block_out_channels=(32, 48),
                   layers_per_block=1, attention=(False, True), heads=(2, 3),
                   transformer_depth=(1, 1), cross_attention_dim=16, norm_num_groups=8),
        DDPM(), 195, {"context": (2, 16)},
    ),
    # For tests.
    "smallest": OMGSRConfig(
        VAEConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
                  mid_block_add_attention=False),
        UNetConfig(block_out_channels=(8,), layers_per_block=1, attention=(True,), heads=(2,),
                   transformer_depth=(1,), cross_attention_dim=8, norm_num_groups=4),
        DDPM(), 195, {"context": (2, 8)},
    ),
}  # fmt: skip
