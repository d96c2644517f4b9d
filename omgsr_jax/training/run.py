"""A run of OMGSR put together: networks, weights, data, the compiled step, validation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from .. import converted
from ..cost.flops import step_flops
from ..data import make_pipeline, to_device
from ..errors import InputError
from ..weights import PRECISIONS, variables
from . import blueprint as blueprints
from .blueprint import Blueprint, Weights
from .config import TrainConfig
from .layout import batch_sharding, make_mesh, rows_by_process
from .loop import Task
from .state import load_frozen, make_state, placed
from .step import compile_ready
from .validation import Metric, make_validator


def make_task(config: TrainConfig, metrics: Mapping[str, Metric]) -> Task:
    """Everything that the loop needs for a config; `metrics` are what validation measures."""
    if not config.data.sources:
        raise InputError(
            "config.data.sources is empty: name folders of photographs, .txt lists or ArrayRecord "
            "shards, such as --config.data.sources=\"('photos',)\""
        )
    blueprint = blueprints.draw(config)
    mesh = make_mesh(config.mesh)
    where = placed(blueprint, mesh)
    step = compile_ready(blueprint, where, mesh)
    pipeline = config.pipeline()
    batches = to_device(make_pipeline(pipeline), pipeline, batch_sharding(mesh))
    frozen, adapters = load_frozen(blueprint, where)

    def run(state: Any, batch: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        with jax.set_mesh(mesh):
            return step(state, frozen, dict(batch))

    return Task(
        state=make_state(blueprint, where, adapters),
        shapes=where.state,
        shardings=where.state_sharding,
        step=run,
        batches=iter(batches),
        images=config.data.batch_size,
        rows=rows_by_process(config.data.batch_size, mesh)[jax.process_index()],
        flops=step_flops(blueprint).total,
        validate=make_validator(blueprint, where, mesh, frozen, metrics)
        if config.validation.sources
        else None,
        validate_every=config.validation.every,
    )


def trained_card(config: TrainConfig, blueprint: Blueprint) -> converted.ModelCard:
    """The description of the model that a run trains."""
    size = config.model.process_size or config.data.resolution
    if not config.model.path:
        return converted.ModelCard(blueprint.generator_config, size, prompt="")
    base = converted.read_card(config.model.path)
    return dataclasses.replace(base, generator=blueprint.generator_config, process_size=size)


def write_model(
    out: str, config: TrainConfig, adapters: Weights, *, precision: str | None = None
) -> None:
    """The base with a run's adapters, as a converted model: to upscale with, or to export.

    Weights keep the precision that they have, unless another one is asked for.
    """
    blueprint = blueprints.draw(config)
    mesh = make_mesh(config.mesh)
    where = placed(blueprint, mesh)
    if config.model.path:
        base = converted.by_name_on_host(config.model.path)
    else:
        base = jax.device_get(load_frozen(blueprint, where)[0])
    names = set(variables(blueprint.generator))
    params = {**base, **jax.device_get(adapters)}
    if precision:
        dtype = PRECISIONS[precision]
        params = {name: array.astype(dtype) for name, array in params.items()}
    converted.write(
        out, trained_card(config, blueprint), {name: params[name] for name in sorted(names)}
    )
