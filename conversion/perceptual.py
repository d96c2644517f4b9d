"""Perceptual networks in the layouts that they are published in, to one converted directory.

The table `NETWORKS` has a row for each: the files or transformers folder that are looked for. Files
are .safetensors, .h5, or pickles (.pth, .pt) where they are allowed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from omgsr_jax import perceptual
from omgsr_jax.descriptions import Json, read_json
from omgsr_jax.errors import InputError
from omgsr_jax.files import require_new
from omgsr_jax.losses.dists import DISTSConfig
from omgsr_jax.losses.lpips import LPIPSConfig
from omgsr_jax.perceptual import PerceptualCard

from . import configs, perceptual_files
from .diffusers_folder import sha256
from .keymap import DIFFUSERS, DINOV2, DINOV3_CONVNEXT, TORCHVISION, Spelling, convert_state
from .perceptual_files import Weights
from .tensor_files import Tensors, open_file, open_tensors

_ENDINGS = (".safetensors", ".pth", ".pt", ".h5")


@dataclass(frozen=True)
class _Network:
    """Where a network is found, and how its weights are understood."""

    patterns: tuple[str, ...]
    config: Callable[[Weights], Any]
    spelling: Spelling = DIFFUSERS
    # Rewrites what a renaming cannot: splits, other layouts.
    prepare: Callable[[Weights], Weights] = dict
    # Reads the config.json of a transformers folder.
    config_json: Callable[[Json, str], Any] | None = None
    # The network whose channels these weights weigh, and their config for one of its configs.
    weighs: tuple[str, Callable[[Any], Any]] | None = None


# By the names that they have in `omgsr_jax.perceptual.NETWORKS`.
NETWORKS: dict[str, _Network] = {
    # torchvision's, or vgg16_weights.h5 of lpips-j
    "vgg": _Network(
        ("vgg16*",),
        perceptual_files.vgg_config,
        spelling=TORCHVISION,
        prepare=perceptual_files.vgg_names,
    ),
    # the lpips package's, or lpips_lin.h5 of lpips-j
    "lpips_vgg": _Network(
        ("lpips/vgg.*", "**/v0.1/vgg.*", "lpips_lin.h5"),
        perceptual_files.lpips_config,
        prepare=perceptual_files.flat_heads,
        weighs=("vgg", lambda vgg: LPIPSConfig(vgg.widths)),
    ),
    # torchvision's
    "alexnet": _Network(("alexnet*",), perceptual_files.alexnet_config, spelling=TORCHVISION),
    # the lpips package's
    "lpips_alex": _Network(
        ("lpips/alex.*", "**/v0.1/alex.*"),
        perceptual_files.lpips_config,
        prepare=perceptual_files.flat_heads,
        weighs=("alexnet", lambda alexnet: LPIPSConfig(alexnet.widths)),
    ),
    "dists": _Network(
        ("dists/weights.*", "dists*", "DISTS*"),
        perceptual_files.dists_config,
        prepare=perceptual_files.flat,
        weighs=("vgg", lambda vgg: DISTSConfig(3 + sum(vgg.widths))),
    ),
    # a transformers folder, or the original's dinov2_vit*14_pretrain.*
    "dinov2": _Network(
        ("dinov2*",),
        perceptual_files.dinov2_config,
        spelling=DINOV2,
        prepare=perceptual_files.split_qkv,
        config_json=configs.dinov2_config,
    ),
    # a transformers folder, or the original's dinov3_convnext_*
    "dinov3_convnext": _Network(
        ("dinov3*convnext*",),
        perceptual_files.convnext_config,
        spelling=DINOV3_CONVNEXT,
        config_json=configs.dinov3_convnext_config,
    ),
}


def convert_perceptual(
    directory: str | Path, out: str | Path, *, allow_pickle: bool = False
) -> PerceptualCard:
    """Converts every perceptual network found in `directory`; writes the result to `out`.

    Args:
        directory: a folder with files and sub-folders as `NETWORKS` names them.
        out: the converted networks; must not exist yet. `omgsr_jax.perceptual.read` reads them.
        allow_pickle: open pickled weights with torch.load(weights_only=True).
    """
    require_new(out)
    folder = Path(directory).expanduser()
    if not folder.is_dir():
        raise InputError(f"{directory} is not a folder; expected one with perceptual networks")
    found = {name: path for name, row in NETWORKS.items() if (path := _find(folder, name, row))}
    if not found:
        patterns = sorted({pattern for row in NETWORKS.values() for pattern in row.patterns})
        raise InputError(f"{directory} has no perceptual network; looked for {', '.join(patterns)}")
    found_configs, params, sources = {}, {}, {}
    for name, path in found.items():
        found_configs[name], params[name], files = _read(name, path, allow_pickle=allow_pickle)
        sources.update({str(file.relative_to(folder)): sha256(file) for file in files})
    _check_fit(found_configs)
    card = PerceptualCard(configs=found_configs, sources=sources)
    perceptual.write(out, card, params)
    return card


def _find(folder: Path, name: str, row: _Network) -> Path | None:
    """The file or transformers folder that holds a network."""
    found = {
        path
        for pattern in row.patterns
        for path in folder.glob(pattern)
        if path.suffix in _ENDINGS or (row.config_json and (path / "config.json").is_file())
    }
    if len(found) > 1:
        names = ", ".join(sorted(str(path.relative_to(folder)) for path in found))
        raise InputError(f"{folder} has several candidates for {name}: {names}. Leave one.")
    return next(iter(found), None)


def _read(
    name: str, path: Path, *, allow_pickle: bool
) -> tuple[Any, dict[str, np.ndarray], list[Path]]:
    """A network's config, its weights by our names, and the files that they were in."""
    row = NETWORKS[name]
    if path.is_dir() and row.config_json is not None:
        config_file = path / "config.json"
        tensors: Mapping[str, np.ndarray] = open_tensors(path, "model", allow_pickle=allow_pickle)
        config = row.config_json(read_json(config_file), str(config_file))
        files = [config_file]
        files += [file.path for file in tensors.files] if isinstance(tensors, Tensors) else []
    else:
        opened = _open(path, allow_pickle=allow_pickle)
        files = [path]
        try:
            tensors = row.prepare(opened)
            config = row.config(tensors)
        except KeyError as error:
            raise InputError(f"{path} is not {name}: it has no {error}") from error
        except (IndexError, TypeError, ValueError, ZeroDivisionError) as error:
            raise InputError(
                f"{path} is not {name}: its tensors have other shapes ({error})"
            ) from error
    params = convert_state(
        tensors,
        nnx.state(perceptual.abstract(name, config)),
        spelling=row.spelling,
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

    def take(key: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            tensors[key] = np.asarray(item)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(take)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise InputError(f"{path} is not an HDF5 file that can be read: {error}") from error
    return tensors


def _check_fit(found: Mapping[str, Any]) -> None:
    """LPIPS and DISTS weigh the channels of the network that they are for."""
    for name, config in found.items():
        if not (weighs := NETWORKS[name].weighs):
            continue
        needs, expected = weighs
        if needs not in found:
            raise InputError(f"{name} weighs the channels of {needs}, which is not in the folder")
        if config != expected(found[needs]):
            raise InputError(f"{name} is for another network than the {needs} beside it")
