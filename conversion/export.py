"""A converted model to PyTorch's formats: a diffusers folder, its adapters beside it."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import nnx

from omgsr_jax import converted, files, model_cards
from omgsr_jax.converted import ModelCard, kind_name
from omgsr_jax.descriptions import Json
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR
from omgsr_jax.models.vae import VAEConfig
from omgsr_jax.storage import to_json
from omgsr_jax.weights import variables

from . import backbones, configs, peft_adapters, prompts
from .backbones import Backbone
from .diffusers_folder import MODEL_INDEX, SCHEDULER, SETTINGS, WEIGHTS, tokenizer_of
from .keymap import torch_state
from .recipes import Settings
from .tensor_files import write_safetensors


def export(model_directory: str | Path, out: str | Path) -> None:
    """Writes a converted model as a diffusers folder, its adapters beside it as peft folders.

    The folder has no text encoder; the prompt's embeddings stand in its place.
    """
    files.require_new(out)
    card = converted.read_card(model_directory)
    _require_published_layout(card, str(model_directory))
    model = converted.read(model_directory)
    generator = card.generator
    if not isinstance(generator.vae, VAEConfig):
        raise InputError(
            f"{model_directory} has a VAE of this project's own, which diffusers does not know: "
            "only models with an AutoencoderKL can be exported"
        )
    kind = backbones.of_config(generator.backbone)
    size = sum(leaf.nbytes for leaf in variables(model).values())
    with files.new_directory(out, bytes_needed=size) as folder:
        components = {
            "vae": configs.vae_json(generator.vae),
            kind.folder: kind.write_config(generator.backbone),
            "scheduler": kind.write_process(generator.process),
        }
        _write_part(folder / "vae", components["vae"], model.vae)
        _write_part(folder / kind.folder, components[kind.folder], model.backbone)
        _write_json(folder / "scheduler" / SCHEDULER, components["scheduler"])
        write_safetensors(
            folder / prompts.EXPORTED,
            {name: np.asarray(e[...]) for name, e in model.prompt.items()},
        )
        _write_json(folder / SETTINGS, _settings(card))
        _write_json(folder / MODEL_INDEX, _model_index(kind, components))
        lora = _write_adapters(folder, card, model)
        readme = model_cards.of_exported(card, kind.pipeline, _absent(kind), lora)
        files.write_text(folder / model_cards.FILE, readme)


def _require_published_layout(card: ModelCard, model: str) -> None:
    if card.generator.adaptive:
        raise InputError(
            f"{model} chooses a mid-timestep for each image, and diffusers and peft have no place "
            "for that: export it with --format stablehlo, or train it at one timestep for all"
        )


def _settings(card: ModelCard) -> Json:
    settings = Settings(
        name=card.origin.recipe or "custom",
        mid_timestep=card.generator.mid_timestep,
        prompt=card.prompt,
        process_size=card.process_size,
        color=card.color,
        origin=card.origin,
        process="residual" if kind_name(card.generator.process) == "residual" else "",
        resizing=card.resizing,
        tile_size=card.tile_size,
        tile_overlap=card.tile_overlap,
    )
    return to_json(settings)


def _absent(kind: Backbone) -> list[str]:
    """The pipeline's components that a converted model no longer has."""
    return [name for text in kind.texts for name in (text, tokenizer_of(text))]


def _model_index(kind: Backbone, components: Mapping[str, Json]) -> Json:
    """What diffusers reads first: its pipeline, and the class of each component."""
    classes = {name: ["diffusers", config["_class_name"]] for name, config in components.items()}
    absent = {name: [None, None] for name in _absent(kind)}
    return {"_class_name": kind.pipeline, **classes, **absent}


def _write_part(folder: Path, config: Json, module: nnx.Module) -> None:
    params = {
        name: np.asarray(leaf[...])
        for name, leaf in variables(module).items()
        if not isinstance(leaf, nnx.LoRAParam)
    }
    _write_json(folder / "config.json", config)
    write_safetensors(folder / f"{WEIGHTS}.safetensors", torch_state(params))


def _write_adapters(folder: Path, card: ModelCard, model: OMGSR) -> dict[str, str]:
    """The folder of each adapter, by the module of the pipeline that it belongs to."""
    kind = backbones.of_config(card.generator.backbone)
    written = {}
    for where, name, spec, module in (
        ("pipe.vae.encoder", kind.encoder_adapter, card.generator.encoder_lora, model.vae.encoder),
        (
            f"pipe.{kind.folder}",
            kind.backbone_adapter,
            card.generator.backbone_lora,
            model.backbone,
        ),
    ):
        if spec:
            peft_adapters.write_adapter(folder / name, spec, module)
            written[where] = name
    return written


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
