"""Checkpoints with random weights in the real on-disk formats, written by diffusers and peft.

The published weights are large and partly gated. These have their architecture, their files and
their key names, so that every step from file to image can be compared without them.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .random_presets import FLUX, PRESETS, SD, TARGETS, Kind, Preset

__all__ = ["FLUX", "PRESETS", "SD", "Kind", "Preset"]


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
    names, targets = kind.adapters, (TARGETS, kind.targets)
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
