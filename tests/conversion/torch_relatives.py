"""OMGSR's relatives in PyTorch, with adapters that peft adds to their networks from a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig

_HYPIR_TARGETS = ["to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_shortcut"]
_HYPIR_TARGETS += ["conv_out", "proj_in", "proj_out", "ff.net.2", "ff.net.0.proj"]
GROUPS = ("encoder", "decoder", "others")


class Relative:
    """Encode, predict, decode: b c h w."""

    def __init__(self, base: Path, prompt: Any):
        self.vae = AutoencoderKL.from_pretrained(base / "vae").eval()
        self.unet = UNet2DConditionModel.from_pretrained(base / "unet").eval()
        self.alpha_bar = DDPMScheduler.from_pretrained(base / "scheduler").alphas_cumprod
        self.prompt = torch.from_numpy(prompt)[None]

    def encode(self, x: Any) -> Any:
        return self.vae.encode(x).latent_dist.mode() * self.vae.config.scaling_factor

    def predict(self, z: Any, t: int) -> Any:
        return self.unet(z, t, encoder_hidden_states=self.prompt).sample

    def clean(self, z: Any, t: int) -> Any:
        alpha = self.alpha_bar[t]
        return (z - (1 - alpha).sqrt() * self.predict(z, t)) / alpha.sqrt()

    def decode(self, z: Any) -> Any:
        return self.vae.decode(z / self.vae.config.scaling_factor).sample * 0.5 + 0.5


def hypir(base: Path, prompt: Any, file: Path) -> Relative:
    found, state = Relative(base, prompt), torch.load(file, weights_only=True)
    found.unet.add_adapter(LoraConfig(r=256, lora_alpha=256, target_modules=_HYPIR_TARGETS))
    _fill(found.unet, state, "lora")
    return found


def osediff(base: Path, prompt: Any, file: Path) -> Relative:
    found, content = Relative(base, prompt), torch.load(file, weights_only=True)
    names = []
    for group in GROUPS:
        names.append(f"default_{group}")
        _add(found.unet, content[f"unet_lora_{group}_modules"], names[-1])
    found.unet.set_adapter(names)
    _fill(found.unet, content["state_dict_unet"], "lora", "conv_in")
    _add(found.vae, content["vae_lora_encoder_modules"], "default_encoder")
    _fill(found.vae, content["state_dict_vae"], "lora")
    return found


def pisa(base: Path, prompt: Any, file: Path) -> Relative:
    found, content = Relative(base, prompt), torch.load(file, weights_only=True)
    for which in ("pix", "sem"):
        for group in GROUPS:
            layers = content[f"unet_lora_{group}_modules_{which}"]
            _add(found.unet, layers, f"default_{group}_{which}")
    _fill(found.unet, content["state_dict_unet"], "lora")
    return found


def of_pisa(relative: Relative, z: Any, strengths: Sequence[float]) -> Any:
    """z_P: as much of both predictions as the strengths say."""
    pix = [f"default_{group}_pix" for group in GROUPS]
    relative.unet.set_adapter(pix)
    pixel = relative.predict(z, 1)
    relative.unet.set_adapter([*pix, *(f"default_{group}_sem" for group in GROUPS)])
    semantic = relative.predict(z, 1) - pixel
    return z - (strengths[0] * pixel + strengths[1] * semantic)


def _add(network: Any, layers: list[str], name: str) -> None:
    network.add_adapter(LoraConfig(r=4, target_modules=layers), adapter_name=name)


def _fill(network: Any, state: dict[str, Any], *marks: str) -> None:
    wanted = {key for key in network.state_dict() if any(mark in key for mark in marks)}
    assert wanted == state.keys()
    network.load_state_dict(state, strict=False)
