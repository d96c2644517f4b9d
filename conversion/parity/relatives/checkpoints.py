"""Random adapters of OMGSR's relatives, in the files that their training code saves.

Layers are chosen and named by diffusers and peft, as there; none of this is the reader's
(conversion/relatives.py).
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ENCODER: tuple[str, ...] = ("conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out")
_ENCODER += ("to_k", "to_q", "to_v", "to_out.0")
_UNET = (*_ENCODER, "proj_out", "proj_in", "ff.net.2", "ff.net.0.proj")
_DELTA = 0.02  # about the deviation of what adapters add to a weight


def write_hypir(path: Path, base: Path, *, rank: int = 256, seed: int = 1) -> None:
    """The UNet's parameters that were trained, by their own names."""
    import torch
    from peft import LoraConfig

    torch.manual_seed(seed)
    unet = _unet(base)
    targets = [name for name in _UNET if name != "conv_in"]
    unet.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
    )
    _enliven(unet, rank, 1)
    _save(path, {key: value for key, value in unet.state_dict().items() if "lora" in key})


def write_osediff(path: Path, base: Path, *, rank: int = 4, seed: int = 1) -> None:
    """Adapters of three groups of the UNet's layers, of the VAE's encoder, and a new conv_in."""
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    unet, vae = _unet(base), AutoencoderKL.from_pretrained(base / "vae")
    groups = _add_groups(unet, "", rank)
    layers = [
        name
        for name, _ in _layers(vae)
        if (name.startswith("encoder.") and _is_one_of(name, _ENCODER)) or name == "quant_conv"
    ]
    vae.add_adapter(_config(layers, rank), adapter_name="default_encoder")
    for network in (unet, vae):
        _enliven(network, rank, 8 / rank)
    with torch.no_grad():
        for weight in unet.conv_in.base_layer.parameters():
            weight += _DELTA * torch.randn_like(weight)
    trained = {k: v for k, v in unet.state_dict().items() if "lora" in k or "conv_in" in k}
    content: dict[str, Any] = {
        f"unet_lora_{group}_modules": names for group, names in groups.items()
    }
    content |= {"vae_lora_encoder_modules": layers, "rank_unet": rank, "rank_vae": rank}
    content["state_dict_unet"] = trained
    content["state_dict_vae"] = {k: v for k, v in vae.state_dict().items() if "lora" in k}
    _save(path, content)


def write_pisa(path: Path, base: Path, *, rank: int = 4, seed: int = 1) -> None:
    """A pixel and a semantic adapter on every layer, each of three groups."""
    import torch

    torch.manual_seed(seed)
    unet = _unet(base)
    content: dict[str, Any] = {}
    for which in ("pix", "sem"):
        groups = _add_groups(unet, f"_{which}", rank)
        content |= {f"unet_lora_{group}_modules_{which}": names for group, names in groups.items()}
        content[f"lora_rank_unet_{which}"] = rank
    _enliven(unet, rank, 8 / rank)
    content["state_dict_unet"] = {k: v for k, v in unet.state_dict().items() if "lora" in k}
    _save(path, content)


# By the name of the recipe: what writes its file, and what that is called.
WRITERS: dict[str, tuple[Callable[..., None], str]] = {
    "hypir-sd2": (write_hypir, "HYPIR_sd2.pth"),
    "osediff": (write_osediff, "osediff.pkl"),
    "pisa-sr": (write_pisa, "pisa_sr.pkl"),
}


def _unet(base: Path) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(base / "unet")


def _add_groups(unet: Any, ending: str, rank: int) -> dict[str, list[str]]:
    """Adapters of the encoder, the decoder and the other layers; the names of the layers."""
    groups: dict[str, list[str]] = {"encoder": [], "decoder": [], "others": []}
    for name, _ in _layers(unet):
        if _is_one_of(name, _UNET):
            groups[_group(name)].append(name)
    for group, layers in groups.items():
        unet.add_adapter(_config(layers, rank), adapter_name=f"default_{group}{ending}")
    return groups


def _group(name: str) -> str:
    if name.startswith("down_blocks.") or name == "conv_in":
        return "encoder"
    return "decoder" if name.startswith("up_blocks.") or name == "conv_out" else "others"


def _layers(network: Any) -> list[tuple[str, Any]]:
    """Linear and convolution layers by name, inside of an adapter that is there already too."""
    import torch

    return [
        (name.removesuffix(".base_layer"), module)
        for name, module in network.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and ".lora_" not in name
    ]


def _is_one_of(name: str, endings: tuple[str, ...]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)


def _config(layers: list[str], rank: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=rank, init_lora_weights="gaussian", target_modules=layers)


def _enliven(network: Any, rank: int, scaling: float) -> None:
    """B is zero at the start of training, which would prove nothing."""
    import torch

    for key, weight in network.named_parameters():
        if ".lora_B." in key:
            torch.nn.init.normal_(weight, std=_DELTA * math.sqrt(rank) / scaling)


def _save(path: Path, content: dict[str, Any]) -> None:
    import torch

    torch.save(content, path)
