"""The kinds of diffusers folders: one entry per backbone says all that is special about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from omgsr_jax.descriptions import Json, shown
from omgsr_jax.errors import InputError
from omgsr_jax.models.flux import FluxConfig
from omgsr_jax.models.unet import UNetConfig
from omgsr_jax.models.z_image import ZImageConfig
from omgsr_jax.process import DDPM, FlowMatching

from . import configs, flux_configs, prompts, z_image_configs
from .diffusers_folder import SCHEDULER, DiffusersFolder
from .keymap import DIFFUSERS, Spelling


@dataclass(frozen=True)
class Backbone:
    """Where a kind of backbone is in a diffusers folder, and how it and what it needs is read."""

    folder: str
    # The class of diffusers that its config.json names.
    network: str
    config: type
    read_config: Callable[[Json, str], Any]
    write_config: Callable[[Any], Json]
    read_process: Callable[[Json, str], DDPM | FlowMatching]
    write_process: Callable[[DDPM | FlowMatching], Json]
    embed_prompt: Callable[[DiffusersFolder, str], dict[str, np.ndarray]]
    texts: tuple[str, ...]
    # The pipeline of diffusers that has these components.
    pipeline: str
    # The published names of the adapters' folders.
    encoder_adapter: str
    backbone_adapter: str
    spelling: Spelling = DIFFUSERS


BACKBONES = (
    Backbone(
        folder="unet",
        network="UNet2DConditionModel",
        config=UNetConfig,
        read_config=configs.unet_config,
        write_config=configs.unet_json,
        read_process=configs.ddpm,
        write_process=configs.scheduler_json,
        embed_prompt=prompts.for_sd,
        texts=("text_encoder",),
        pipeline="StableDiffusionPipeline",
        encoder_adapter="vae_encoder_lora_adapter",
        backbone_adapter="unet_lora_adapter",
    ),
    Backbone(
        folder="transformer",
        network="FluxTransformer2DModel",
        config=FluxConfig,
        read_config=flux_configs.flux_config,
        write_config=flux_configs.flux_json,
        read_process=flux_configs.flow_matching,
        write_process=flux_configs.flow_matching_json,
        embed_prompt=prompts.for_flux,
        texts=("text_encoder", "text_encoder_2"),
        pipeline="FluxPipeline",
        encoder_adapter="vae_encoder_adapter",
        backbone_adapter="flux_adapter",
    ),
    Backbone(
        folder="transformer",
        network="ZImageTransformer2DModel",
        config=ZImageConfig,
        read_config=z_image_configs.z_image_config,
        write_config=z_image_configs.z_image_json,
        read_process=z_image_configs.flow_matching,
        write_process=z_image_configs.flow_matching_json,
        embed_prompt=prompts.for_z_image,
        texts=("text_encoder",),
        pipeline="ZImagePipeline",
        encoder_adapter="vae_encoder_adapter",
        backbone_adapter="z_image_adapter",
    ),
)
ENCODER_ADAPTERS = tuple(dict.fromkeys(backbone.encoder_adapter for backbone in BACKBONES))
BACKBONE_ADAPTERS = tuple(backbone.backbone_adapter for backbone in BACKBONES)


def of_folder(base: DiffusersFolder) -> Backbone:
    """The backbone that a diffusers folder holds: where several may be, its config says which."""
    there = [backbone for backbone in BACKBONES if base.has(backbone.folder)]
    if not there:
        folders = dict.fromkeys(f"{backbone.folder}/" for backbone in BACKBONES)
        raise InputError(
            f"{base.path} has no backbone: expected a sub-folder {' or '.join(folders)}"
        )
    possible = [backbone for backbone in there if backbone.folder == there[0].folder]
    if len(possible) == 1:
        return possible[0]
    folder = possible[0].folder
    found = base.config(folder).get("_class_name")
    for backbone in possible:
        if backbone.network == found:
            return backbone
    raise InputError(
        f"{base.path}/{folder}/config.json has the _class_name {shown(found)}, expected "
        f"{' or '.join(backbone.network for backbone in possible)}"
    )


def fetched(base: str) -> Path:
    """A diffusers folder, or that of a hub id, which holds all that is read of it."""
    folder = DiffusersFolder(base)
    folder.config("scheduler", SCHEDULER)
    fetch(folder)
    return folder.path


def fetch(base: DiffusersFolder, digests: Mapping[str, str] = MappingProxyType({})) -> None:
    """Has in the cache what is read of a folder on the hub, and nothing else."""
    kind = of_folder(base)
    texts = () if prompts.are_exported(base) else kind.texts
    base.fetch((kind.folder, "vae"), texts, digests=digests)


def of_adapter(folder: str) -> Backbone:
    """The backbone that an adapter belongs to, by its folder's name."""
    return next(backbone for backbone in BACKBONES if backbone.backbone_adapter == folder)


def of_config(config: Any) -> Backbone:
    return next(backbone for backbone in BACKBONES if isinstance(config, backbone.config))
