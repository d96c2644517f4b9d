"""Converted perceptual networks on disk: what a training run's losses look through.

perceptual.json   which networks, their configs, and where they came from
params/vgg/ ...   the weights of each, in Orbax's format: only those that are needed are read
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding

from .descriptions import Json, build, several
from .errors import InputError
from .losses.dists import DISTSConfig, DISTSWeights
from .losses.lpips import LPIPSConfig, LPIPSHeads
from .losses.total import Networks
from .models.alexnet import AlexNet, AlexNetConfig
from .models.dinov2 import DINOv2, DINOv2Config
from .models.dinov3_convnext import DINOv3ConvNeXt, DINOv3ConvNeXtConfig
from .models.features import CLIP_MEAN, Pixels
from .models.pixel_vae import PixelVAE
from .models.vae import VAE
from .models.vgg import VGG, VGGConfig
from .storage import FORMAT, PARAMS, Kind, read_description, restore, to_json, write_directory
from .weights import PRECISIONS, fill, variables

CARD = "perceptual.json"
KIND = Kind("a directory of converted perceptual networks", CARD, "omgsr convert --perceptual")


class Network(NamedTuple):
    """A network that losses, discriminators or distances look through."""

    build: Any
    config: Any
    takes_remat: bool = False
    # The weights of a distance are small, and stay in fp32 whatever the networks compute in.
    weighs: bool = False
    # How the published code gives it images: other values of its config.
    published: Mapping[str, Any] = MappingProxyType({})


# A new network is a file in models/, a row here and one in conversion/perceptual.py.
NETWORKS: dict[str, Network] = {
    "vgg": Network(VGG, VGGConfig),
    "lpips_vgg": Network(LPIPSHeads, LPIPSConfig, weighs=True, published={"unit_range": True}),
    "alexnet": Network(AlexNet, AlexNetConfig),
    "lpips_alex": Network(LPIPSHeads, LPIPSConfig, weighs=True),
    "dists": Network(DISTSWeights, DISTSConfig, weighs=True),
    "dinov2": Network(DINOv2, DINOv2Config, takes_remat=True, published={"mean": CLIP_MEAN}),
    "dinov3_convnext": Network(DINOv3ConvNeXt, DINOv3ConvNeXtConfig, takes_remat=True),
}
# What is looked through and has no weights of its own on disk: it comes with the generator's VAE.
OWN: dict[str, Callable[[VAE | PixelVAE], nnx.Module]] = {
    "vae_encoder": lambda vae: vae.encoder,
    "pixels": lambda vae: Pixels(),
}
# What a discriminator can look through.
BACKBONES = (*(name for name, row in NETWORKS.items() if not row.weighs), *OWN)


@dataclass(frozen=True)
class PerceptualCard:
    """The content of perceptual.json."""

    configs: Mapping[str, Any]
    # Every file that went in: name -> sha256.
    sources: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "parts": {name: to_json(config) for name, config in self.configs.items()},
            "sources": dict(self.sources),
        }

    @classmethod
    def from_json(cls, content: Json, where: str) -> "PerceptualCard":
        found = build(_Stored, content, where)
        unknown = sorted(found.parts.keys() - NETWORKS.keys())
        if unknown:
            raise InputError(f"{where}: parts.{several(unknown)} is not known here")
        configs = {
            name: build(NETWORKS[name].config, content["parts"][name], f"{where}: parts.{name}")
            for name in found.parts
        }
        return cls(configs, found.sources)


@dataclass(frozen=True)
class _Stored:
    """The card, before each network's own config is made of its part."""

    parts: Mapping[str, Mapping[str, Any]]
    sources: Mapping[str, str]


def write(
    directory: str | Path, card: PerceptualCard, params: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Writes networks by their names in `NETWORKS`. The directory appears only when it is whole."""
    trees = {f"{PARAMS}/{name}": tree for name, tree in params.items()}
    write_directory(directory, KIND, card.to_json(), trees)


def read_card(directory: str | Path) -> PerceptualCard:
    return read_description(directory, KIND, PerceptualCard.from_json)


def read(
    directory: str | Path,
    parts: Collection[str],
    *,
    precision: str = "fp32",
    sharding: Callable[[str], Sharding] | None = None,
    remat: bool = False,
) -> Networks:
    """The networks called `parts`, such as `LossWeights.networks`; others are not read.

    Args:
        directory: what `omgsr convert --perceptual` wrote, local or in a bucket (gs://...).
        parts: names in `NETWORKS`.
        precision: "fp32" or "bf16", what the networks compute in.
        sharding: where each weight goes, by its name with its part's in front of it.
        remat: recompute activations in the backward pass, where a network can.
    """
    networks = Networks()
    for name, config in configs(directory, parts).items():
        model = abstract(name, config, remat=remat)
        params = restore(
            directory,
            KIND,
            variables(model),
            tree=f"{PARAMS}/{name}",
            sharding=_of_part(sharding, name),
        )
        networks[name] = _on_device(fill(model, params), dtype_of(name, precision))
    return networks


def configs(directory: str | Path, parts: Collection[str]) -> dict[str, Any]:
    """The configs of the networks called `parts`, all of which must be there."""
    found = read_card(directory).configs
    absent = sorted(set(parts) - set(found))
    if absent:
        raise InputError(
            f"{directory} has no {', '.join(absent)}; it has {', '.join(found) or 'nothing'}. "
            f"Add the weights to the source folder and run `{KIND.command}` again."
        )
    return {name: found[name] for name in parts}


def as_published(configs: Mapping[str, Any]) -> dict[str, Any]:
    """The same networks, given images as the published code gives them: DINOv2's are normalised
    with CLIP's mean, and LPIPS' are in [0, 1]."""
    return {
        name: dataclasses.replace(config, **NETWORKS[name].published)
        for name, config in configs.items()
    }


def abstract(name: str, config: Any, *, remat: bool = False) -> nnx.Module:
    """The network called `name`, with shapes in place of large arrays."""
    row = NETWORKS[name]
    options = {"remat": remat} if row.takes_remat else {}
    try:
        return row.build(config, rngs=None, **options)
    except ValueError as error:
        raise InputError(f"{name} cannot be built: {error}") from error


def dtype_of(name: str, precision: str) -> jnp.dtype:
    """What the weights of the network called `name` are kept in, where networks compute in
    `precision`."""
    return jnp.dtype("float32") if NETWORKS[name].weighs else jnp.dtype(PRECISIONS[precision])


def _of_part(
    sharding: Callable[[str], Sharding] | None, name: str
) -> Callable[[str], Sharding] | None:
    return sharding and (lambda weight: sharding(f"{name}.{weight}"))


def _on_device(model: nnx.Module, dtype: jnp.dtype) -> nnx.Module:
    graph, state = nnx.split(model)
    return nnx.merge(graph, jax.tree.map(lambda leaf: jnp.asarray(leaf.astype(dtype)), state))
