"""A converted model on disk: a directory that names everything needed to use it.

    omgsr.json   what the model is and where it came from (`ModelCard`), the files and their digests
    params/      its weights, in Orbax's format: read shard by shard, from a local disk or a bucket
    README.md    the same for people and for the hub (model_cards.py)

Preparing it to compute with is inference/prepare.py's part.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Sharding

from . import model_cards, storage
from .descriptions import Json, build, first_line
from .digests import CARD, Notify
from .errors import InputError
from .files import write_text
from .generator import OMGSR, AnyVAE, OMGSRConfig, make_vae
from .model_cards import COLOR, RESIZING, Origin, whole_origin
from .models.flux import FluxConfig
from .models.pixel_vae import PixelVAEConfig
from .models.unet import UNetConfig
from .models.vae import VAEConfig
from .models.z_image import ZImageConfig
from .process import DDPM, FlowMatching, Residual, ScaledDDPM
from .storage import (
    FORMAT,
    PARAMS,
    Kind,
    Weight,
    read_description,
    restore,
    rewrite_card,
    to_json,
    tree_shapes,
    write_directory,
)
from .weights import below, fill, variables

KIND = Kind("a converted model", CARD, "omgsr convert")

# How the parts that have variants are called in omgsr.json.
_KINDS: dict[str, type] = {
    "autoencoder_kl": VAEConfig,
    "pixel_vae": PixelVAEConfig,
    "unet": UNetConfig,
    "flux": FluxConfig,
    "z_image": ZImageConfig,
    "ddpm": DDPM,
    "scaled_ddpm": ScaledDDPM,
    "residual": Residual,
    "flow_matching": FlowMatching,
}


@dataclass(frozen=True)
class ModelCard:
    """The content of omgsr.json."""

    generator: OMGSRConfig
    process_size: int
    prompt: str
    # Every file that went in: name -> sha256.
    sources: Mapping[str, str] = field(default_factory=dict)
    # Which colours results get where none are asked for: see inference/colour.py.
    color: str = COLOR
    # How images are enlarged, padded and reduced: see inference/restore.py.
    resizing: str = RESIZING
    # Of the backbone's tiles, in pixels; by default the process size, and half of a tile.
    tile_size: int | None = None
    tile_overlap: int | None = None
    origin: Origin = field(default_factory=Origin)

    def to_json(self) -> dict[str, Any]:
        parts = {
            item.name: getattr(self.generator, item.name)
            for item in dataclasses.fields(self.generator)
        }
        return {
            "format": FORMAT,
            "generator": {name: _to_json(part) for name, part in parts.items()},
            "process_size": self.process_size,
            "prompt": self.prompt,
            "sources": dict(self.sources),
            "color": self.color,
            "resizing": self.resizing,
            "tile_size": self.tile_size,
            "tile_overlap": self.tile_overlap,
            "origin": to_json(self.origin),
        }

    @classmethod
    def from_json(cls, content: Json, where: str) -> "ModelCard":
        """A card from before cards named colours, tiles or an origin says nothing of them."""
        plain = {"color": cls.color, "resizing": cls.resizing}
        tiles = {"tile_size": cls.tile_size, "tile_overlap": cls.tile_overlap}
        content = {**plain, **tiles, **content, "origin": whole_origin(content)}
        if "generator" in content:
            content["generator"] = _whole_generator(content["generator"])
        return build(cls, content, where, kinds=_KINDS)


def _whole_generator(generator: Any) -> Any:
    """An earlier version knew one kind of VAE, and no mid-timestep of an image's own."""
    if not isinstance(generator, Mapping):
        return generator
    generator = {"adaptive": None, **generator}
    vae = generator.get("vae")
    if not isinstance(vae, Mapping) or "kind" in vae:
        return generator
    return {**generator, "vae": {"kind": "autoencoder_kl", **vae}}


def _to_json(part: Any) -> Any:
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        kind = {"kind": kind_name(part)} if type(part) in _KINDS.values() else {}
        return kind | to_json(part)
    return part


def write(directory: str | Path, card: ModelCard, params: Mapping[str, Weight]) -> None:
    """Writes a converted model. It appears under its name only when it is whole."""
    content = card.to_json()
    # What could not be read again is not written.
    described = {name: value for name, value in content.items() if name != "format"}
    ModelCard.from_json(described, f"{directory} cannot be written")
    texts = {model_cards.FILE: model_cards.of_converted(card)}
    write_directory(directory, KIND, content, {PARAMS: params}, texts=texts)


def read_card(directory: str | Path) -> ModelCard:
    return read_description(directory, KIND, ModelCard.from_json)


def digest(directory: str | Path) -> str | None:
    """The sha256 of the whole model, or None if an earlier version wrote it without digests."""
    return storage.digest(directory, KIND)


def read(
    directory: str | Path,
    *,
    sharding: Callable[[str], Sharding] | None = None,
    remat: bool = False,
    notify: Notify | None = None,
) -> OMGSR:
    """The generator with its adapters apart, in the precision that it is stored in.

    Args:
        directory: a converted model, local or in a bucket (gs://...).
        sharding: where each weight goes, by name; each process reads only its own shards. By
            default the weights are NumPy arrays on the host.
        remat: recompute activations in the backward pass.
        notify: told how long comparing a large model with its digests takes.
    """
    model = _shapes(directory, read_card(directory).generator, remat=remat)
    return fill(model, read_weights(directory, variables(model), sharding=sharding, notify=notify))


def read_base(directory: str | Path, *, notify: Notify | None = None) -> OMGSR:
    """The generator without its adapters: the pre-trained networks, where only adapters were
    trained."""
    model = _shapes(directory, read_card(directory).generator.without_adapters)
    return fill(model, read_weights(directory, variables(model), part=True, notify=notify))


def _shapes(directory: str | Path, generator: OMGSRConfig, *, remat: bool = False) -> OMGSR:
    """The generator that a card describes, with shapes in place of weights."""
    try:
        return OMGSR(generator, remat=remat, rngs=None)
    except ValueError as error:
        raise InputError(
            f"{epath.Path(directory) / KIND.card} is damaged: {first_line(error)}"
        ) from error


def read_weights(
    directory: str | Path,
    wanted: Mapping[str, Any],
    *,
    sharding: Callable[[str], Sharding] | None = None,
    part: bool = False,
    notify: Notify | None = None,
) -> dict[str, Any]:
    """Weights by name: all or, with `part`, some of them. See `storage.restore`."""
    return restore(directory, KIND, wanted, sharding=sharding, part=part, notify=notify)


def by_name_on_host(directory: str | Path) -> dict[str, np.ndarray]:
    """All weights of a converted model by name, as NumPy arrays."""
    return read_weights(directory, stored_shapes(directory))


def read_prompt(directory: str | Path) -> dict[str, np.ndarray]:
    """The prompt's embeddings by the backbone's keyword, without the rest of the model."""
    wanted = {
        f"prompt.{name}": jax.ShapeDtypeStruct(shape, np.float32)
        for name, shape in read_card(directory).generator.prompt_shapes.items()
    }
    return below("prompt.", read_weights(directory, wanted, part=True))


def read_vae(directory: str | Path) -> AnyVAE:
    """The pre-trained VAE alone, in fp32: no adapter, and nothing of the backbone is read."""
    vae = make_vae(read_card(directory).generator.vae, rngs=None)
    wanted = {f"vae.{name}": leaf for name, leaf in variables(vae).items()}
    params = below("vae.", read_weights(directory, wanted, part=True))
    return fill(vae, {name: array.astype(np.float32) for name, array in params.items()})


def set_mid_timestep(directory: str | Path, mid_timestep: int) -> None:
    """Rewrites the mid-timestep of a converted model that has not been trained at another one."""
    card = require_untrained(directory)
    generator = dataclasses.replace(card.generator, mid_timestep=mid_timestep)
    card = dataclasses.replace(card, generator=generator)
    rewrite_card(directory, KIND, card.to_json())
    write_text(epath.Path(directory) / model_cards.FILE, model_cards.of_converted(card))


def require_untrained(directory: str | Path) -> ModelCard:
    """The card of a model without adapters, whose mid-timestep may still be chosen."""
    card = read_card(directory)
    if card.generator.adaptive:
        raise InputError(
            f"{directory} chooses a mid-timestep for each image. To train it at one for all, set "
            "config.model.mid_timestep."
        )
    if card.generator.encoder_lora or card.generator.backbone_lora:
        raise InputError(
            f"the adapters in {directory} were trained at mid-timestep "
            f"{card.generator.mid_timestep} and would not fit another one. Convert the base "
            "without --adapter, choose, and train that."
        )
    return card


def stored_shapes(directory: str | Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every weight of a converted model, without reading the weights."""
    return tree_shapes(directory, KIND)


def kind_name(part: Any) -> str:
    """What the class of a part is called in omgsr.json."""
    return next(name for name, kind in _KINDS.items() if type(part) is kind)
