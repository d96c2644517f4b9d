"""Generators that a run can start from with random weights: to try things out and to compile."""

import math
from dataclasses import replace

from .errors import InputError
from .generator import OMGSRConfig
from .models.flux import FluxConfig
from .models.pixel_vae import PixelVAEConfig
from .models.unet import UNetConfig
from .models.vae import VAEConfig
from .models.z_image import ZImageConfig
from .process import DDPM, FlowMatching, ScaledDDPM

# The VAE of FLUX.1, which Z-Image has too.
_VAE_16 = VAEConfig(
    latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159,
    use_quant_conv=False, use_post_quant_conv=False,
)  # fmt: skip
_SMALLEST_VAE_16 = replace(
    _VAE_16, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
    mid_block_add_attention=False, scaling_factor=VAEConfig.scaling_factor, shift_factor=0.1,
)  # fmt: skip
# Z-Image-Turbo shifts its schedule by 3 at every size.
_FLOW_3 = FlowMatching(base_shift=math.log(3), max_shift=math.log(3))

ARCHITECTURES: dict[str, OMGSRConfig] = {
    # SD-Turbo and SD2.1-base: 866 M parameters in the UNet, 84 M in the VAE.
    "sd": OMGSRConfig(VAEConfig(), UNetConfig(), DDPM(), 195, {"context": (77, 1024)}),
    # FLUX.1-dev: 11.9 G parameters in the transformer, 84 M in the VAE.
    "flux": OMGSRConfig(
        _VAE_16, FluxConfig(), FlowMatching(), 244, {"context": (512, 4096), "pooled": (768,)},
    ),
    # Z-Image-Turbo: 6.2 G parameters in the transformer, 84 M in the VAE; an empty prompt.
    "z-image": OMGSRConfig(_VAE_16, ZImageConfig(), _FLOW_3, 254, {"context": (8, 2560)}),
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
    # nano's VAE and a small FLUX, whose patches have 8 pixels: to study the lattice.
    "nano-dit": OMGSRConfig(
        PixelVAEConfig(),
        FluxConfig(in_channels=96, num_layers=2, num_single_layers=4, attention_head_dim=32,
                   num_attention_heads=5, joint_attention_dim=32, pooled_projection_dim=32,
                   guidance_embeds=False, axes_dims_rope=(8, 12, 12)),
        FlowMatching(), 120, {"context": (2, 32), "pooled": (32,)},
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
        _SMALLEST_VAE_16,
        FluxConfig(num_layers=2, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
                   joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4)),
        FlowMatching(), 244, {"context": (2, 8), "pooled": (8,)},
    ),
    "smallest-z-image": OMGSRConfig(
        _SMALLEST_VAE_16,
        ZImageConfig(hidden_size=16, num_layers=2, num_refiner_layers=1, num_attention_heads=2,
                     context_dim=8, axes_dims=(2, 2, 4)),
        _FLOW_3, 254, {"context": (2, 8)},
    ),
}  # fmt: skip


def named(name: str) -> OMGSRConfig:
    if name not in ARCHITECTURES:
        raise InputError(f"there is no architecture {name!r}, only {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
