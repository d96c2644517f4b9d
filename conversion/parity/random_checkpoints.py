"""Checkpoints with random weights in the real on-disk formats, written by diffusers and peft.

The published weights are large and partly gated. These have their architecture, their files and
their key names, so that every step from file to image can be compared without them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from . import random_tokenizers

# The published target lists.
_TARGETS = ["conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out"]
_TARGETS += ["to_k", "to_q", "to_v", "to_out.0"]
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
    targets=_TARGETS,
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
        kind=replace(FLUX, texts={"text_encoder": _CLIP, "text_encoder_2": _T5_OF_512}),
    ),
}


def write_base(folder: Path, preset: Preset, *, seed: int = 0, dtype: str = "float32") -> None:
    """A diffusers folder with random weights."""
    import torch

    torch.manual_seed(seed)
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        for part, build in _networks(preset).items():
            module = build()
            enliven(module)
            module.save_pretrained(folder / part, max_shard_size=preset.shard)
            del module
    finally:
        torch.set_default_dtype(torch.float32)
    _write_json(folder / "scheduler" / "scheduler_config.json", preset.scheduler)
    for part, (*_, write_tokenizer) in preset.kind.texts.items():
        write_tokenizer(folder / part.replace("text_encoder", "tokenizer"))


def _networks(preset: Preset) -> dict[str, Callable[[], Any]]:
    """What makes each network, by its folder."""
    import diffusers
    import transformers

    def text_encoder(part: str) -> Any:
        config, model, _ = preset.kind.texts[part]
        made = getattr(transformers, config)(**preset.texts[part])
        return getattr(transformers, model)(made)

    network = getattr(diffusers, preset.kind.network)
    return {
        preset.kind.folder: lambda: network(**preset.backbone),
        "vae": lambda: diffusers.AutoencoderKL(**preset.vae),
        **{part: partial(text_encoder, part) for part in preset.kind.texts},
    }


def write_adapters(folder: Path, base: Path, preset: Preset, *, seed: int = 1) -> None:
    """Adapters on the published targets, saved as the published training code saves them."""
    import diffusers
    import torch
    from peft import LoraConfig, PeftModel

    torch.manual_seed(seed)
    kind = preset.kind
    network = getattr(diffusers, kind.network)
    encoder = diffusers.AutoencoderKL.from_pretrained(base / "vae", torch_dtype="auto").encoder
    backbone = network.from_pretrained(base / kind.folder, torch_dtype="auto")
    names, targets = kind.adapters, (_TARGETS, kind.targets)
    ranks = (preset.encoder_rank, preset.backbone_rank)
    for name, module, rank, modules in zip(names, (encoder, backbone), ranks, targets, strict=True):
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=modules, init_lora_weights="gaussian"
        )
        adapted = PeftModel(module, config, adapter_name=name)
        for key, weight in adapted.named_parameters():
            if "lora_B" in key:  # zero at the start of training, which would prove nothing
                torch.nn.init.normal_(weight, std=0.02)
        adapted.save_pretrained(str(folder))


def write_perceptual(folder: Path, preset: Preset, *, seed: int = 2) -> None:
    """VGG16 and LPIPS' weights in torchvision's and lpips' names, DINOv2 by transformers."""
    import torch
    from safetensors.torch import save_file
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(seed)
    tensors: dict[str, Any] = {}
    c_in, layer = 3, 0
    for width, depth in zip(preset.vgg, (2, 2, 3, 3, 3), strict=True):
        for _ in range(depth):
            # He's initialisation: activations do not fade away over 13 layers.
            weight = torch.randn(width, c_in, 3, 3) * (2 / (9 * c_in)) ** 0.5
            tensors |= {
                f"features.{layer}.weight": weight,
                f"features.{layer}.bias": torch.zeros(width),
            }
            c_in, layer = width, layer + 2
        layer += 1  # the pooling
    lin = {
        f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) / width
        for i, width in enumerate(preset.vgg)
    }
    (folder / "lpips").mkdir(parents=True)
    save_file(tensors, folder / "vgg16.safetensors")
    save_file(lin, folder / "lpips" / "vgg.safetensors")
    dinov2 = Dinov2Model(Dinov2Config(**{"image_size": 518, **preset.dinov2}))
    enliven(dinov2)
    dinov2.save_pretrained(folder / "dinov2-base")


def enliven(module: Any) -> None:
    """Makes norms and biases random too: ones and zeros would hide a swapped pair."""
    import torch

    for key, weight in module.named_parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, mean=float("norm" in key and "weight" in key), std=0.05)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
