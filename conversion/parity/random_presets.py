"""What checkpoints with random weights are like: which classes their files are of, and how large.

Architectures are keyword arguments of diffusers' and transformers' own classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from . import random_tokenizers

# The published target lists.
TARGETS = ["conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out"]
TARGETS += ["to_k", "to_q", "to_v", "to_out.0"]
_FLUX_TARGETS = ["x_embedder", "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0"]
_FLUX_TARGETS += ["attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out"]
_FLUX_TARGETS += ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"]
# Those that OMGSR-F's correspond to.
_Z_TARGETS = ["all_x_embedder.2-1", "attention.to_k", "attention.to_q", "attention.to_v"]
_Z_TARGETS += ["attention.to_out.0", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"]


@dataclass(frozen=True)
class Kind:
    """Which classes of diffusers and transformers a checkpoint's files are of.

    Attributes:
        texts: by folder, a text encoder's config, the class that is saved, its tokenizer's writer.
        adapters: the folders of the encoder's and the backbone's.
        targets: the layers that the backbone's is on.
    """

    folder: str
    network: str
    texts: dict[str, tuple[str, str, Callable[[Path], None]]]
    adapters: tuple[str, str]
    targets: list[str]


_CLIP = ("CLIPTextConfig", "CLIPTextModel", random_tokenizers.write_clip)
_T5 = ("T5Config", "T5EncoderModel", random_tokenizers.write_t5)
_T5_OF_512 = (*_T5[:2], partial(random_tokenizers.write_t5, tokens=512))
_QWEN3 = ("Qwen3Config", "Qwen3ForCausalLM", random_tokenizers.write_qwen2)
SD = Kind(
    folder="unet",
    network="UNet2DConditionModel",
    texts={"text_encoder": _CLIP},
    adapters=("vae_encoder_lora_adapter", "unet_lora_adapter"),
    targets=TARGETS,
)
FLUX = Kind(
    folder="transformer",
    network="FluxTransformer2DModel",
    texts={"text_encoder": _CLIP, "text_encoder_2": _T5},
    adapters=("vae_encoder_adapter", "flux_adapter"),
    targets=_FLUX_TARGETS,
)
Z_IMAGE = Kind(
    folder="transformer",
    network="ZImageTransformer2DModel",
    texts={"text_encoder": _QWEN3},
    adapters=("vae_encoder_adapter", "z_image_adapter"),
    targets=_Z_TARGETS,
)


@dataclass(frozen=True)
class Preset:
    """An architecture, as keyword arguments of diffusers' and transformers' own classes."""

    backbone: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]
    scheduler: dict[str, Any]
    encoder_rank: int
    backbone_rank: int
    kind: Kind = SD
    # FLUX's second text encoder.
    text_2: dict[str, Any] = field(default_factory=dict)
    # How large a file of the backbone may be.
    shard: str = "10GB"
    # The networks that losses and discriminators look through: VGG16's widths, and DINOv2-B but for
    # what stands here.
    vgg: tuple[int, ...] = (64, 128, 256, 512, 512)
    dinov2: dict[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> dict[str, dict[str, Any]]:
        return {"text_encoder": self.text, "text_encoder_2": self.text_2}


_SD_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
_TURBO = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", **_SD_SCHEDULE}
_SD21 = {
    "_class_name": "PNDMScheduler",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    **_SD_SCHEDULE,
}
_TINY_TEXT = {
    "vocab_size": 514,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "hidden_act": "gelu",
    "eos_token_id": 513,
    "bos_token_id": 512,
    "pad_token_id": 0,
}
_OPENCLIP_H = {
    "vocab_size": 514,  # the token table is not the part worth its gigabyte
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "eos_token_id": 513,
    "bos_token_id": 512,
    "pad_token_id": 0,
}
_SD2_UNET = {
    "sample_size": 64,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
_SD_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "sample_size": 512,
}

_FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}
_Z_FLOW = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "use_dynamic_shifting": False,
    "shift": 3.0,
}
_TINY_VAE = {
    "block_out_channels": [16, 32, 32],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
}
_FLUX_VAE = {
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
}
# As in FLUX.1-dev's CLIP-L, whose end of text is the largest id.
_TINY_CLIP_L = _TINY_TEXT | {"hidden_act": "quick_gelu", "eos_token_id": 2}
_TINY_T5 = {
    "vocab_size": 260,
    "d_model": 48,
    "d_kv": 8,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}

_TINY_QWEN3 = {
    "vocab_size": 260,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "tie_word_embeddings": True,
    "rope_theta": 1000000,
}

PRESETS = {
    "tiny": Preset(
        backbone={
            "sample_size": 16,
            "layers_per_block": 1,
            "block_out_channels": [32, 64, 96],
            "attention_head_dim": [2, 4, 6],
            "cross_attention_dim": 48,
            "use_linear_projection": True,
            "norm_num_groups": 8,
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        },
        vae=_TINY_VAE,
        text=_TINY_TEXT,
        scheduler=_TURBO,
        encoder_rank=4,
        backbone_rank=8,
        vgg=(8, 12, 16, 16, 16),
        dinov2={
            "hidden_size": 32,
            "num_hidden_layers": 6,
            "num_attention_heads": 2,
            "image_size": 70,
        },
    ),
    "flux-tiny": Preset(
        backbone={
            "in_channels": 64,
            "num_layers": 2,
            "num_single_layers": 3,
            "attention_head_dim": 16,
            "num_attention_heads": 4,
            "joint_attention_dim": 48,
            "pooled_projection_dim": 48,
            "guidance_embeds": True,
            "axes_dims_rope": [4, 6, 6],
        },
        vae=_TINY_VAE | _FLUX_VAE,
        text=_TINY_CLIP_L,
        scheduler=_FLOW,
        encoder_rank=4,
        backbone_rank=8,
        kind=FLUX,
        text_2=_TINY_T5,
        shard="200KB",
    ),
    # FLUX.1-dev's width and kinds of blocks, an eighth of its depth: 1.5 G parameters.
    "flux-mid": Preset(
        backbone={
            "in_channels": 64,
            "num_layers": 2,
            "num_single_layers": 5,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
            "guidance_embeds": True,
        },
        vae=_SD_VAE | _FLUX_VAE | {"block_out_channels": [32, 64, 64, 64]},
        text=_TINY_CLIP_L | {"hidden_size": 768, "num_attention_heads": 12},
        scheduler=_FLOW,
        encoder_rank=64,
        backbone_rank=64,
        kind=FLUX,
        text_2=_TINY_T5 | {"d_model": 4096},
        shard="1GB",
    ),
    "z-image-tiny": Preset(
        backbone={
            "dim": 64,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 4,
            "n_kv_heads": 4,
            "cap_feat_dim": 48,
            "axes_dims": [4, 6, 6],
        },
        vae=_TINY_VAE | _FLUX_VAE,
        text=_TINY_QWEN3,
        scheduler=_Z_FLOW,
        encoder_rank=4,
        backbone_rank=8,
        kind=Z_IMAGE,
        shard="200KB",
    ),
    # Z-Image's width and kinds of blocks, a seventh of its depth: 1.4 G parameters.
    "z-image-mid": Preset(
        backbone={"n_layers": 4, "n_refiner_layers": 1},
        vae=_SD_VAE | _FLUX_VAE | {"block_out_channels": [32, 64, 64, 64]},
        text=_TINY_QWEN3 | {"hidden_size": 2560},
        scheduler=_Z_FLOW,
        encoder_rank=64,
        backbone_rank=64,
        kind=Z_IMAGE,
        shard="1GB",
    ),
    # Half of SD-Turbo's widths, at half of its resolution.
    "sd-mid": Preset(
        backbone=_SD2_UNET
        | {
            "block_out_channels": [160, 320, 640, 640],
            "cross_attention_dim": 512,
            "sample_size": 32,
        },
        vae=_SD_VAE | {"block_out_channels": [64, 128, 256, 256], "sample_size": 256},
        text=_TINY_TEXT | {"hidden_size": 512, "num_attention_heads": 8},
        scheduler=_TURBO,
        encoder_rank=16,
        backbone_rank=32,
    ),
    "sd-turbo": Preset(_SD2_UNET, _SD_VAE, _OPENCLIP_H, _TURBO, 16, 32),
    "sd21-base": Preset(_SD2_UNET, _SD_VAE, _OPENCLIP_H, _SD21, 16, 32),
}
# The published code counts on a VAE of 8 pixels a latent, and on 512 tokens of T5.
_VAE_OF_8 = {
    "block_out_channels": [8, 16, 16, 16],
    "norm_num_groups": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
PRESETS |= {
    "s-published": replace(PRESETS["tiny"], vae=_TINY_VAE | _VAE_OF_8),
    "sd21-tiny": replace(
        PRESETS["tiny"],
        backbone=PRESETS["tiny"].backbone
        | {
            "block_out_channels": [32, 64],
            "attention_head_dim": [2, 4],
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        },
        vae=_TINY_VAE | _VAE_OF_8,
        scheduler=_SD21,
    ),
    "f-published": replace(
        PRESETS["flux-tiny"],
        vae=_TINY_VAE | _FLUX_VAE | _VAE_OF_8,
        shard="10GB",
        kind=replace(FLUX, texts={"text_encoder": _CLIP, "text_encoder_2": _T5_OF_512}),
    ),
}
