"""Perceptual networks' files: configs that they do not hold, and layouts that are not PyTorch's.

Configs are read off the weights' shapes.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from omgsr_jax.losses.dists import DISTSConfig
from omgsr_jax.losses.lpips import LPIPSConfig
from omgsr_jax.models.alexnet import AlexNetConfig
from omgsr_jax.models.dinov2 import DINOv2Config
from omgsr_jax.models.dinov3_convnext import DINOv3ConvNeXtConfig
from omgsr_jax.models.vgg import VGGConfig

Weights = Mapping[str, np.ndarray]

_DINOV2_HEAD_SIZE = 64  # in all sizes; the original's files do not say


def vgg_config(tensors: Weights) -> VGGConfig:
    widths = [tensors[f"features.{i}.weight"].shape[0] for i in (0, 5, 10, 17, 24)]
    return VGGConfig(widths=tuple(widths))


def alexnet_config(tensors: Weights) -> AlexNetConfig:
    widths = [tensors[f"features.{i}.weight"].shape[0] for i in (0, 3, 6, 8, 10)]
    return AlexNetConfig(widths=tuple(widths))


def vgg_names(tensors: Weights) -> Weights:
    """lpips-j's conv1_1/weight (HWIO) as torchvision's features.0.weight; others as they are."""
    named = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(r"conv(\d)_(\d)/(weight|bias)", key)
        if match is None:
            named[key.replace("fc", "classifier.") if "/" in key else key] = tensor
            continue
        stage, i = int(match[1]) - 1, int(match[2]) - 1
        index = sum(2 * depth + 1 for depth in VGGConfig().depths[:stage]) + 2 * i
        kernel = tensor.transpose(3, 2, 0, 1) if tensor.ndim == 4 else tensor
        named[f"features.{index}.{match[3]}"] = kernel
    return named


def flat_heads(tensors: Weights) -> Weights:
    """The lpips package's lin0.model.1.weight (1 c 1 1), or lpips-j's lin0, as lin.0 (c)."""
    return {
        re.sub(r"^lin(\d)(\.model\.1\.weight)?$", r"lin.\1", key): tensor.reshape(-1)
        for key, tensor in tensors.items()
    }


def lpips_config(tensors: Weights) -> LPIPSConfig:
    return LPIPSConfig(tuple(tensors[f"lin.{i}"].size for i in range(5)))


def dists_config(tensors: Weights) -> DISTSConfig:
    return DISTSConfig(tensors["alpha"].size)


def flat(tensors: Weights) -> Weights:
    return {key: tensor.reshape(-1) for key, tensor in tensors.items()}


def split_qkv(tensors: Weights) -> Weights:
    """The original's fused projections, one by one."""
    split = {}
    for key, tensor in tensors.items():
        if ".attn.qkv." not in key:
            split[key] = tensor
            continue
        for name, third in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
            split[key.replace("qkv", name)] = third
    return split


def dinov2_config(tensors: Weights) -> DINOv2Config:
    width = tensors["cls_token"].shape[-1]
    patch = tensors["patch_embed.proj.weight"].shape[-1]
    return DINOv2Config(
        hidden_size=width,
        num_hidden_layers=_count(tensors, r"blocks\.(\d+)\."),
        num_attention_heads=width // _DINOV2_HEAD_SIZE,
        mlp_ratio=tensors["blocks.0.mlp.fc1.weight"].shape[0] / width,
        patch_size=patch,
        image_size=patch * math.isqrt(tensors["pos_embed"].shape[1] - 1),
    )


def convnext_config(tensors: Weights) -> DINOv3ConvNeXtConfig:
    stages = range(_count(tensors, r"stages\.(\d+)\."))
    return DINOv3ConvNeXtConfig(
        hidden_sizes=tuple(tensors[f"stages.{i}.0.gamma"].shape[0] for i in stages),
        depths=tuple(_count(tensors, rf"stages\.{i}\.(\d+)\.") for i in stages),
    )


def _count(tensors: Weights, pattern: str) -> int:
    """How many members a numbered list has."""
    return len({match[1] for key in tensors if (match := re.match(pattern, key))})
