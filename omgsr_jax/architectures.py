"""Generators that a run can start from with random weights: to try things out and to compile."""

from .errors import InputError
from .generator import OMGSRConfig
from .models.flux import FluxConfig
from .models.pixel_vae import PixelVAEConfig
from .models.unet import UNetConfig
from .models.vae import VAEConfig
from .process import DDPM, FlowMatching, ScaledDDPM

ARCHITECTURES: dict[str, OMGSRConfig] = {
    # SD-Turbo and SD2.1-base: 866 M parameters in the UNet, 84 M in the VAE.
    "sd": OMGSRConfig(VAEConfig(), UNetConfig(), DDPM(), 195, {"context": (77, 1024)}),
    # FLUX.1-dev: 11.9 G parameters in the transformer, 84 M in the VAE.
    "flux": OMGSRConfig(
        VAEConfig(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159,
                  use_quant_conv=False, use_post_quant_conv=False),
        FluxConfig(), FlowMatching(), 244, {"context": (512, 4096), "pooled": (768,)},
    ),
    # Trains on a CPU in minutes: latents of half the image's size.
    "tiny": OMGSRConfig(
        VAEConfig(block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
                  latent_channels=8, mid_block_add_attention=False, scaling_factor=1.0),
        UNetConfig(in_channels=8, out_channels=8, block_out_channels=(32, 48),
                   layers_per_block=1, attention=(False, True), heads=(2, 3),
                   transformer_depth=(1, 1), cross_attention_dim=16, norm_num_groups=8),
        DDPM(), 195, {"context": (2, 16)},
    ),
    # OMGSR-nano, the model in the package: latents of a quarter of the image's size.
    "nano": OMGSRConfig(
        PixelVAEConfig(),
        UNetConfig(in_channels=24, out_channels=24, block_out_channels=(64, 128, 160),
                   layers_per_block=1, attention=(False, False, False), heads=(2, 4, 5),
                   transformer_depth=(1, 1, 1), cross_attention_dim=32, norm_num_groups=8),
        ScaledDDPM(), 150, {"context": (2, 32)},
    ),
    # For tests.
    "smallest": OMGSRConfig(
        VAEConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
                  mid_block_add_attention=False),
        UNetConfig(block_out_channels=(8,), layers_per_block=1, attention=(True,), heads=(2,),
                   transformer_depth=(1,), cross_attention_dim=8, norm_num_groups=4),
        DDPM(), 195, {"context": (2, 8)},
    ),
    "smallest-pixels": OMGSRConfig(
        PixelVAEConfig(latent_channels=8, branch_width=4),
        UNetConfig(in_channels=8, out_channels=8, block_out_channels=(8,), layers_per_block=1,
                   attention=(True,), heads=(2,), transformer_depth=(1,), cross_attention_dim=8,
                   norm_num_groups=4),
        ScaledDDPM(), 195, {"context": (2, 8)},
    ),
    "smallest-flux": OMGSRConfig(
        VAEConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
                  latent_channels=16, mid_block_add_attention=False, shift_factor=0.1,
                  use_quant_conv=False, use_post_quant_conv=False),
        FluxConfig(num_layers=2, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
                   joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4)),
        FlowMatching(), 244, {"context": (2, 8), "pooled": (8,)},
    ),
}  # fmt: skip


def named(name: str) -> OMGSRConfig:
    if name not in ARCHITECTURES:
        raise InputError(f"there is no architecture {name!r}, only {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
