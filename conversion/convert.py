"""A PyTorch checkpoint, with or without an OMGSR adapter, to a converted model."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from flax import nnx

from omgsr_jax import converted, files
from omgsr_jax.converted import ModelCard
from omgsr_jax.descriptions import first_line, read_json
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR, OMGSRConfig
from omgsr_jax.hub import UnavailableError
from omgsr_jax.storage import Pending, Weight
from omgsr_jax.weights import PRECISIONS

from . import adapters, backbones, configs, prompts, recipes
from .adapters import Adapters
from .diffusers_folder import SCHEDULER, SETTINGS, DiffusersFolder
from .keymap import VAE, Spelling, plan_state, prefixed
from .recipes import Adapted, Base, Recipe, Settings
from .relatives import OneFile

_BASE_WEIGHTS = nnx.filterlib.Not(nnx.LoRAParam)


def convert(
    base: str | None,
    out: str | Path,
    *,
    recipe: str | None = None,
    adapter: str | None = None,
    prompt: str | None = None,
    mid_timestep: int | None = None,
    process_size: int | None = None,
    precision: str | None = None,
    allow_pickle: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> ModelCard:
    """Converts a diffusers checkpoint and the adapters trained on it; writes the result to `out`.

    Args:
        base: a diffusers folder, or the hub id of one; by default that of the recipe.
        out: the converted model; must not exist yet.
        recipe: the name of a published recipe, see recipes.py.
        adapter: a folder with the published adapter sub-folders, or a zip of one; or the file of
            a relative's adapters (relatives.py). Without it the base alone is converted, as
            training needs it.
        prompt, mid_timestep, process_size: default to those of the recipe, if only one is possible.
        precision: "fp32" or "bf16" for the base's weights; by default they are stored as they are.
        allow_pickle: open pickled weights with torch.load(weights_only=True).
        say: is told which recipe was taken, its licences, and which mirrors were passed over.
    """
    files.require_new(out)
    given = {"prompt": prompt, "mid_timestep": mid_timestep, "process_size": process_size}
    with ExitStack() as until_written:
        path = until_written.enter_context(adapters.opened(adapter)) if adapter else None
        pair = adapters.read(path, shown=adapter, allow_pickle=allow_pickle)
        row = _named(recipe, base, pair.adapted, say)
        if row:
            recipes.require_whole(row, pair.adapted, prompt)
        folder = _open(base, row, allow_pickle, say)
        settings = _settings(folder, row, pair.adapted, given, say)
        if terms := recipes.licenses(settings):
            say(terms)
        card, params = _plan(folder, pair, settings, precision)
        converted.write(out, card, params)
    return card


def _named(
    recipe: str | None, base: str | None, adapted: Adapted | None, say: Callable[[str], None]
) -> Recipe | None:
    """The recipe that is asked for, or the only one that the adapters may belong to."""
    if recipe is not None:
        row = recipes.named(recipe)
        if adapted:
            recipes.require_fit(row, adapted)
        return row
    if base is not None and (adapted is None or adapted.family == "omgsr"):
        return None
    if adapted is None:
        raise InputError("what is to be converted? Name a base or a recipe")
    row = recipes.of_adapters(adapted)
    say(f"recipe {row.name}: the only one with {recipes.known_by(adapted)}")
    return row


def _open(
    base: str | None, row: Recipe | None, allow_pickle: bool, say: Callable[[str], None]
) -> DiffusersFolder:
    """The base with all that is read of it, from the first place that has it."""
    if base is not None:
        return _opened(base, row, allow_pickle)
    assert row is not None
    failed = []
    for source in row.base.sources:
        try:
            return _opened(source, row, allow_pickle, row.base.digests)
        except UnavailableError as error:
            failed.append(str(error))
            if len(failed) < len(row.base.sources):
                say(f"{error}; trying the next place")
    raise InputError("; ".join(failed))


def _opened(
    base: str,
    row: Recipe | None,
    allow_pickle: bool,
    digests: Mapping[str, str] = MappingProxyType({}),
) -> DiffusersFolder:
    """A base whose configs are in order, before anything large is fetched."""
    folder = DiffusersFolder(base, allow_pickle=allow_pickle)
    found = _known_base(folder)
    if row:
        recipes.require_base(row, found, base)
    backbones.fetch(folder, digests)
    return folder


def _known_base(folder: DiffusersFolder) -> Base | None:
    kind = backbones.of_folder(folder)
    scheduler = folder.config("scheduler", SCHEDULER)
    where = folder.hub_id or str(folder.path)
    return recipes.base_of(scheduler, folder.config(kind.folder), where)


def _settings(
    folder: DiffusersFolder,
    row: Recipe | None,
    adapted: Adapted | None,
    given: Mapping[str, Any],
    say: Callable[[str], None],
) -> Settings:
    if folder.has(SETTINGS) and row is None:
        exported = recipes.exported_settings(
            read_json(folder.used(SETTINGS)), str(folder.path / SETTINGS)
        )
        return replace(exported, **{k: v for k, v in given.items() if v is not None})
    if row is None:
        row, why = recipes.choose(_known_base(folder), adapted, given)
        if row:
            say(f"recipe {row.name}: {why}")
    settings = recipes.settings(row, given, folder.hub_id)
    if adapted:
        return settings
    # The recipe is that of adapters: a base alone has none.
    return replace(settings, origin=replace(settings.origin, recipe=""))


def _plan(
    folder: DiffusersFolder,
    pair: Adapters | OneFile,
    settings: Settings,
    precision: str | None,
) -> tuple[ModelCard, dict[str, Weight]]:
    """The card, and the weights, which are read when they are written."""
    kind = backbones.of_folder(folder)
    pair.require_kind(kind, str(folder.path))
    parts = {
        "vae": configs.vae_config(folder.config("vae"), f"{folder.path}/vae/config.json"),
        "backbone": kind.read_config(
            folder.config(kind.folder), f"{folder.path}/{kind.folder}/config.json"
        ),
        "process": kind.read_process(
            folder.config("scheduler", SCHEDULER), f"{folder.path}/scheduler/{SCHEDULER}"
        ),
        "encoder_lora": pair.encoder_spec,
        "backbone_lora": pair.backbone_spec,
    }
    if settings.process == "residual":
        parts["process"] = configs.residual(parts["process"])
    weights = {name: folder.tensors(name) for name in ("vae", kind.folder)}
    # The text encoder takes seconds: only when what else is there is in order.
    embeddings = (
        prompts.exported(folder)
        if prompts.are_exported(folder)
        else kind.embed_prompt(folder, settings.prompt)
    )
    shapes = {name: array.shape for name, array in embeddings.items()}
    try:
        generator = OMGSRConfig(**parts, mid_timestep=settings.mid_timestep, prompt_shapes=shapes)
        model = OMGSR(generator, rngs=None)
    except ValueError as error:
        raise InputError(f"{folder.path} cannot be converted: {first_line(error)}") from error
    dtype = np.dtype(PRECISIONS[precision]) if precision else None

    def part(name: str, module: nnx.Module, spelling: Spelling) -> dict[str, Pending]:
        return plan_state(
            weights[name],
            nnx.state(module, _BASE_WEIGHTS),
            spelling=spelling,
            headline=f"the weights in {folder.path / name} do not fit their config",
            dtype=dtype,
        )

    params: dict[str, Weight] = {
        **pair.factors(model),
        **prefixed("vae", part("vae", model.vae, VAE)),
        **prefixed("backbone", part(kind.folder, model.backbone, kind.spelling)),
        **prefixed("prompt", embeddings),
    }
    params |= pair.changed(params, dtype)
    card = ModelCard(
        generator=generator,
        process_size=settings.process_size,
        prompt=settings.prompt,
        sources=folder.sources | pair.sources,
        color=settings.color,
        resizing=settings.resizing,
        tile_size=settings.tile_size,
        tile_overlap=settings.tile_overlap,
        origin=settings.origin,
    )
    return card, params
