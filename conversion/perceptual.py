"""Perceptual networks in the layouts that they are published in, to one converted directory.

| part | looked for in the folder |
|---|---|
| VGG16 | torchvision's vgg16*, or vgg16_weights.h5 of lpips-j |
| LPIPS' weights for it | lpips/vgg.*, v0.1/vgg.* of the lpips package, lpips_lin.h5 of lpips-j |
| AlexNet | torchvision's alexnet* |
| LPIPS' weights for it | lpips/alex.*, v0.1/alex.* of the lpips package |
| DISTS' weights | dists/weights.* or dists* |
| DINOv2 | a transformers folder dinov2*, or the original's dinov2_vit*14_pretrain.* |
| DINOv3-ConvNeXt | a transformers folder dinov3*convnext*, or the original's dinov3_convnext_* |

Files are .safetensors, .h5, or pickles (.pth, .pt) where they are allowed. Configs that no file
holds are read off the weights' shapes.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from omgsr_jax import perceptual
from omgsr_jax.errors import InputError
from omgsr_jax.files import require_new
from omgsr_jax.losses.dists import DISTSConfig
from omgsr_jax.losses.lpips import LPIPSConfig
from omgsr_jax.models.alexnet import AlexNetConfig
from omgsr_jax.models.dinov2 import DINOv2Config
from omgsr_jax.models.dinov3_convnext import DINOv3ConvNeXtConfig
from omgsr_jax.models.vgg import VGGConfig
from omgsr_jax.perceptual import PerceptualCard

from . import configs
from .diffusers_folder import sha256
from .keymap import DIFFUSERS, DINOV2, DINOV3_CONVNEXT, TORCHVISION, Spelling, convert_state
from .tensor_files import Tensors, open_file, open_tensors

Weights = Mapping[str, np.ndarray]

_ENDINGS = (".safetensors", ".pth", ".pt", ".h5")
_DINOV2_HEAD_SIZE = 64  # in all sizes; the original's files do not say


@dataclass(frozen=True)
class _Part:
    """Where a part is found, and how its weights are understood."""

    patterns: tuple[str, ...]
    config: Callable[[Weights], Any]
    spelling: Spelling = DIFFUSERS
    # Rewrites what a renaming cannot: splits, other layouts.
    prepare: Callable[[Weights], Weights] = dict
    # Reads the config.json of a transformers folder.
    config_json: Callable[[configs.Json, str], Any] | None = None


def convert_perceptual(
    directory: str | Path, out: str | Path, *, allow_pickle: bool = False
) -> PerceptualCard:
    """Converts every perceptual network found in `directory`; writes the result to `out`.

    Args:
        directory: a folder with files and sub-folders as the table above names them.
        out: the converted networks; must not exist yet. `omgsr_jax.perceptual.read` reads them.
        allow_pickle: open pickled weights with torch.load(weights_only=True).
    """
    require_new(out)
    folder = Path(directory).expanduser()
    if not folder.is_dir():
        raise InputError(f"{directory} is not a folder; expected one with perceptual networks")
    found = {name: path for name, part in _PARTS.items() if (path := _find(folder, name, part))}
    if not found:
        patterns = sorted({pattern for part in _PARTS.values() for pattern in part.patterns})
        raise InputError(f"{directory} has no perceptual network; looked for {', '.join(patterns)}")
    part_configs, params, sources = {}, {}, {}
    for name, path in found.items():
        part_configs[name], params[name], files = _read(name, path, allow_pickle=allow_pickle)
        sources.update({str(file.relative_to(folder)): sha256(file) for file in files})
    _check_fit(part_configs)
    card = PerceptualCard(configs=part_configs, sources=sources)
    perceptual.write(out, card, params)
    return card


def _find(folder: Path, name: str, part: _Part) -> Path | None:
    """The file or transformers folder that holds a part."""
    found = {
        path
        for pattern in part.patterns
        for path in folder.glob(pattern)
        if path.suffix in _ENDINGS or (part.config_json and (path / "config.json").is_file())
    }
    if len(found) > 1:
        names = ", ".join(sorted(str(path.relative_to(folder)) for path in found))
        raise InputError(f"{folder} has several candidates for {name}: {names}. Leave one.")
    return next(iter(found), None)


def _read(
    name: str, path: Path, *, allow_pickle: bool
) -> tuple[Any, dict[str, np.ndarray], list[Path]]:
    """A part's config, its weights by our names, and the files that they were in."""
    part = _PARTS[name]
    if path.is_dir() and part.config_json is not None:
        config_file = path / "config.json"
        tensors = open_tensors(path, "model", allow_pickle=allow_pickle)
        config = part.config_json(configs.read_json(config_file), str(config_file))
        files = [config_file]
        files += [file.path for file in tensors.files] if isinstance(tensors, Tensors) else []
    else:
        tensors = part.prepare(_open(path, allow_pickle=allow_pickle))
        files = [path]
        try:
            config = part.config(tensors)
        except (KeyError, IndexError) as error:
            raise InputError(f"{path} is not {name}: it has no {error}") from error
    params = convert_state(
        tensors,
        nnx.state(perceptual.abstract(name, config)),
        spelling=part.spelling,
        headline=f"the weights in {path} do not fit {name}",
        dtype=np.dtype("float32"),
    )
    return config, params, files


def _open(path: Path, *, allow_pickle: bool) -> Weights:
    if path.suffix != ".h5":
        return open_file(path, allow_pickle=allow_pickle)
    try:
        import h5py
    except ImportError:
        raise InputError(f"reading {path} needs `pip install h5py`") from None
    tensors: dict[str, np.ndarray] = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda key, item: (
                tensors.update({key: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return tensors


def _check_fit(found: Mapping[str, Any]) -> None:
    """LPIPS and DISTS weigh the channels of the network that they are for."""
    for name, needs, expected in (
        ("lpips_vgg", "vgg", lambda config: LPIPSConfig(config.widths)),
        ("lpips_alex", "alexnet", lambda config: LPIPSConfig(config.widths)),
        ("dists", "vgg", lambda config: DISTSConfig(3 + sum(config.widths))),
    ):
        if name not in found:
            continue
        if needs not in found:
            raise InputError(f"{name} weighs the channels of {needs}, which is not in the folder")
        if found[name] != expected(found[needs]):
            raise InputError(f"{name} is for another network than the {needs} beside it")


def _vgg_config(tensors: Weights) -> VGGConfig:
    widths = [tensors[f"features.{i}.weight"].shape[0] for i in (0, 5, 10, 17, 24)]
    return VGGConfig(widths=tuple(widths))


def _alexnet_config(tensors: Weights) -> AlexNetConfig:
    widths = [tensors[f"features.{i}.weight"].shape[0] for i in (0, 3, 6, 8, 10)]
    return AlexNetConfig(widths=tuple(widths))


def _vgg_names(tensors: Weights) -> Weights:
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


def _flat_heads(tensors: Weights) -> Weights:
    """The lpips package's lin0.model.1.weight (1 c 1 1), or lpips-j's lin0, as lin.0 (c)."""
    return {
        re.sub(r"^lin(\d)(\.model\.1\.weight)?$", r"lin.\1", key): tensor.reshape(-1)
        for key, tensor in tensors.items()
    }


def _lpips_config(tensors: Weights) -> LPIPSConfig:
    return LPIPSConfig(tuple(tensors[f"lin.{i}"].size for i in range(5)))


def _flat(tensors: Weights) -> Weights:
    return {key: tensor.reshape(-1) for key, tensor in tensors.items()}


def _split_qkv(tensors: Weights) -> Weights:
    """The original's fused projections, one by one."""
    split = {}
    for key, tensor in tensors.items():
        if ".attn.qkv." not in key:
            split[key] = tensor
            continue
        for name, third in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
            split[key.replace("qkv", name)] = third
    return split


def _dinov2_config(tensors: Weights) -> DINOv2Config:
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


def _convnext_config(tensors: Weights) -> DINOv3ConvNeXtConfig:
    stages = range(_count(tensors, r"stages\.(\d+)\."))
    return DINOv3ConvNeXtConfig(
        hidden_sizes=tuple(tensors[f"stages.{i}.0.gamma"].shape[0] for i in stages),
        depths=tuple(_count(tensors, rf"stages\.{i}\.(\d+)\.") for i in stages),
    )


def _count(tensors: Weights, pattern: str) -> int:
    """How many members a numbered list has."""
    return len({match[1] for key in tensors if (match := re.match(pattern, key))})


_PARTS = {
    "vgg": _Part(("vgg16*",), _vgg_config, TORCHVISION, _vgg_names),
    "lpips_vgg": _Part(
        ("lpips/vgg.*", "**/v0.1/vgg.*", "lpips_lin.h5"), _lpips_config, prepare=_flat_heads
    ),
    "alexnet": _Part(("alexnet*",), _alexnet_config, TORCHVISION),
    "lpips_alex": _Part(("lpips/alex.*", "**/v0.1/alex.*"), _lpips_config, prepare=_flat_heads),
    "dists": _Part(
        ("dists/weights.*", "dists*", "DISTS*"),
        lambda tensors: DISTSConfig(tensors["alpha"].size),
        prepare=_flat,
    ),
    "dinov2": _Part(("dinov2*",), _dinov2_config, DINOV2, _split_qkv, configs.dinov2_config),
    "dinov3_convnext": _Part(
        ("dinov3*convnext*",),
        _convnext_config,
        DINOV3_CONVNEXT,
        config_json=configs.dinov3_convnext_config,
    ),
}
