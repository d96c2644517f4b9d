"""A converted model on disk: a directory that names everything needed to use it.

    omgsr.json   what the model is and where it came from (`ModelCard`)
    params/      its weights, in Orbax's format: read shard by shard, from a local disk or a bucket

Preparing it to compute with is inference/prepare.py's part.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Sharding

from . import files
from .errors import InputError
from .generator import OMGSR, AnyVAE, OMGSRConfig, make_vae
from .models.flux import FluxConfig
from .models.lora import LoRASpec
from .models.pixel_vae import PixelVAEConfig
from .models.unet import UNetConfig
from .models.vae import VAEConfig
from .process import DDPM, FlowMatching, ScaledDDPM
from .storage import (
    FORMAT,
    PARAMS,
    Weight,
    from_json,
    read_description,
    restore,
    to_json,
    tree_shapes,
    write_directory,
)
from .weights import below, fill, variables

CARD = "omgsr.json"

# How the parts that have variants are called in omgsr.json.
_KINDS: dict[str, type] = {
    "autoencoder_kl": VAEConfig,
    "pixel_vae": PixelVAEConfig,
    "unet": UNetConfig,
    "flux": FluxConfig,
    "ddpm": DDPM,
    "scaled_ddpm": ScaledDDPM,
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
    color: str = "adain"

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
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ModelCard":
        parts = content["generator"]
        return cls(
            generator=OMGSRConfig(
                # Cards of the time when there was one kind of VAE do not name it.
                vae=from_json(_KINDS[parts["vae"].get("kind", "autoencoder_kl")], parts["vae"]),
                backbone=from_json(_KINDS[parts["backbone"]["kind"]], parts["backbone"]),
                process=from_json(_KINDS[parts["process"]["kind"]], parts["process"]),
                mid_timestep=parts["mid_timestep"],
                prompt_shapes={k: tuple(v) for k, v in parts["prompt_shapes"].items()},
                encoder_lora=from_json(LoRASpec, parts["encoder_lora"]),
                backbone_lora=from_json(LoRASpec, parts["backbone_lora"]),
            ),
            process_size=content["process_size"],
            prompt=content["prompt"],
            sources=content["sources"],
            color=content.get("color", cls.color),
        )


def _to_json(part: Any) -> Any:
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        kind = {"kind": kind_name(part)} if type(part) in _KINDS.values() else {}
        return kind | to_json(part)
    return part


def write(directory: str | Path, card: ModelCard, params: Mapping[str, Weight]) -> None:
    """Writes a converted model. It appears under its name only when it is whole."""
    write_directory(directory, CARD, card.to_json(), {PARAMS: params})


def read_card(directory: str | Path) -> ModelCard:
    return read_description(
        directory, CARD, "a converted model", "omgsr convert", ModelCard.from_json
    )


def read(
    directory: str | Path,
    *,
    sharding: Callable[[str], Sharding] | None = None,
    remat: bool = False,
) -> OMGSR:
    """The generator with its adapters apart, in the precision that it is stored in.

    Args:
        directory: a converted model, local or in a bucket (gs://...).
        sharding: where each weight goes, by name; each process reads only its own shards. By
            default the weights are NumPy arrays on the host.
        remat: recompute activations in the backward pass.
    """
    model = OMGSR(read_card(directory).generator, remat=remat, rngs=None)
    return fill(model, restore(epath.Path(directory) / PARAMS, set(variables(model)), sharding))


def by_name_on_host(directory: str | Path) -> dict[str, np.ndarray]:
    """All weights of a converted model by name, as NumPy arrays."""
    return restore(epath.Path(directory) / PARAMS, set(stored_shapes(directory)))


def read_prompt(directory: str | Path) -> dict[str, np.ndarray]:
    """The prompt's embeddings by the backbone's keyword, without the rest of the model."""
    names = {f"prompt.{name}" for name in read_card(directory).generator.prompt_shapes}
    restored = restore(epath.Path(directory) / PARAMS, names, part=True)
    return below("prompt.", restored)


def read_vae(directory: str | Path) -> AnyVAE:
    """The pre-trained VAE alone, in fp32: no adapter, and nothing of the backbone is read."""
    vae = make_vae(read_card(directory).generator.vae, rngs=None)
    names = {f"vae.{name}" for name in variables(vae)}
    params = restore(epath.Path(directory) / PARAMS, names, part=True)
    return fill(vae, {k: array.astype(np.float32) for k, array in below("vae.", params).items()})


def set_mid_timestep(directory: str | Path, mid_timestep: int) -> None:
    """Rewrites the mid-timestep of a converted model that has not been trained at another one."""
    card = require_untrained(directory)
    generator = dataclasses.replace(card.generator, mid_timestep=mid_timestep)
    content = dataclasses.replace(card, generator=generator).to_json()
    files.write_text(epath.Path(directory) / CARD, json.dumps(content, indent=2) + "\n")


def require_untrained(directory: str | Path) -> ModelCard:
    """The card of a model without adapters, whose mid-timestep may still be chosen."""
    card = read_card(directory)
    if card.generator.encoder_lora or card.generator.backbone_lora:
        raise InputError(
            f"the adapters in {directory} were trained at mid-timestep "
            f"{card.generator.mid_timestep} and would not fit another one. Convert the base "
            "without --adapter, choose, and train that."
        )
    return card


def stored_shapes(directory: str | Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every weight of a converted model, without reading the weights."""
    return tree_shapes(epath.Path(directory) / PARAMS)


def kind_name(part: Any) -> str:
    """What the class of a part is called in omgsr.json."""
    return next(name for name, kind in _KINDS.items() if type(part) is kind)
