"""Checkpoints with random weights in the real on-disk formats, written by diffusers and peft.

The published weights are large and partly gated. These have their architecture, their files and
their key names, so that every step from file to image can be compared without them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The published target list.
_TARGETS = ["conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out"]
_TARGETS += ["to_k", "to_q", "to_v", "to_out.0"]


@dataclass(frozen=True)
class Preset:
    """An architecture, as keyword arguments of diffusers' and transformers' own classes."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]
    scheduler: dict[str, Any]
    encoder_rank: int
    backbone_rank: int


_SD_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
_TURBO = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", **_SD_SCHEDULE}
_SD21 = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, **_SD_SCHEDULE}
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

PRESETS = {
    "tiny": Preset(
        unet={
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
        vae={
            "block_out_channels": [16, 32, 32],
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
        },
        text=_TINY_TEXT,
        scheduler=_TURBO,
        encoder_rank=4,
        backbone_rank=8,
    ),
    "sd-turbo": Preset(_SD2_UNET, _SD_VAE, _OPENCLIP_H, _TURBO, 16, 32),
    "sd21-base": Preset(_SD2_UNET, _SD_VAE, _OPENCLIP_H, _SD21, 16, 32),
}


def write_base(folder: Path, preset: Preset, *, seed: int = 0) -> None:
    """A diffusers folder with random weights."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    networks: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
    for part, network in networks.items():
        module = network(**getattr(preset, part))
        enliven(module)
        module.save_pretrained(folder / part)
    text = CLIPTextModel(CLIPTextConfig(**preset.text))
    enliven(text)
    text.save_pretrained(folder / "text_encoder")
    _write_json(folder / "scheduler" / "scheduler_config.json", preset.scheduler)
    _write_tokenizer(folder / "tokenizer", preset.text)


def write_adapters(folder: Path, base: Path, preset: Preset, *, seed: int = 1) -> None:
    """Adapters on the published targets, saved as the published training code saves them."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from peft import LoraConfig, PeftModel

    torch.manual_seed(seed)
    for name, module, rank in (
        (
            "vae_encoder_lora_adapter",
            AutoencoderKL.from_pretrained(base / "vae").encoder,
            preset.encoder_rank,
        ),
        (
            "unet_lora_adapter",
            UNet2DConditionModel.from_pretrained(base / "unet"),
            preset.backbone_rank,
        ),
    ):
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=_TARGETS, init_lora_weights="gaussian"
        )
        adapted = PeftModel(module, config, adapter_name=name)
        for key, weight in adapted.named_parameters():
            if "lora_B" in key:  # zero at the start of training, which would prove nothing
                torch.nn.init.normal_(weight, std=0.02)
        adapted.save_pretrained(str(folder))
        del adapted, module


def enliven(module: Any) -> None:
    """Makes norms and biases random too: ones and zeros would hide a swapped pair."""
    import torch

    for key, weight in module.named_parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, mean=float("norm" in key and "weight" in key), std=0.05)


def _write_tokenizer(folder: Path, text: dict[str, Any]) -> None:
    """A CLIP tokenizer whose vocabulary is the 256 bytes, alone and at the end of a word."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    _write_json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "!",  # as in Stable Diffusion 2.x
        },
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
