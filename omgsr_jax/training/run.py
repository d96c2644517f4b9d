"""A run of OMGSR put together: networks, weights, data, the compiled step, validation."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
from jax.sharding import Mesh

from .. import converted
from ..data import make_pipeline, to_device
from ..errors import InputError
from ..weights import PRECISIONS, variables
from .blueprint import Blueprint, Weights
from .config import TrainConfig
from .layout import Layout, batch_sharding, make_mesh, own_reader
from .loop import Task
from .state import TrainState, load_frozen, make_state, state_shapes
from .step import Metrics, batch_shapes, check, compile_ready
from .validation import Metric, make_validator


@dataclass(frozen=True)
class Run:
    """What a config asks for, on devices.

        run = Run.of(config)
        state, frozen = run.start(), run.frozen()
        state, metrics = run.step(state, frozen, batch)

    No weight is read or allocated until it is asked for.
    """

    blueprint: Blueprint
    layout: Layout

    @classmethod
    def of(cls, config: TrainConfig, devices: Sequence[Any] | None = None) -> "Run":
        """On all devices (of all processes), or on the given ones, which need not be there."""
        blueprint = Blueprint.of(config)
        mesh = make_mesh(config.mesh, devices)
        shapes = state_shapes(blueprint)
        return cls(blueprint, Layout.of(shapes, blueprint.frozen, config.sharding, mesh))

    @property
    def config(self) -> TrainConfig:
        return self.blueprint.config

    @property
    def mesh(self) -> Mesh:
        return self.layout.mesh

    def frozen(self) -> Weights:
        """The weights that are not trained: the base's, and those of the losses' networks."""
        return load_frozen(self.blueprint, self.layout)

    def start(self) -> TrainState:
        """The state before the first step."""
        return make_state(self.blueprint, self.layout)

    def step(
        self, state: TrainState, frozen: Weights, batch: Mapping[str, Any]
    ) -> tuple[TrainState, Metrics]:
        """One optimiser step, compiled when it is taken first; `state` is used up."""
        with jax.set_mesh(self.mesh):
            return self._compiling(state, frozen, dict(batch))

    def lower(self, batch: Mapping[str, Any] | None = None) -> Any:
        """The step as a program that is not compiled yet.

        Args:
            batch: one like those that it is going to get; None for the pipeline's.
        """
        if batch is None:
            shapes = batch_shapes(self.blueprint)
        else:
            shapes = jax.eval_shape(lambda arrays: arrays, dict(batch))
        with jax.set_mesh(self.mesh):
            return self._compiling.lower(self.layout.state, self.layout.frozen, shapes)

    @cached_property
    def _compiling(self) -> Any:
        return compile_ready(self.blueprint, self.layout)

    def task(
        self,
        metrics: Mapping[str, Metric],
        utilisation: Callable[[float], float] | None = None,
    ) -> Task:
        """Everything that the loop needs.

        Args:
            metrics: what validation measures.
            utilisation: the share of the devices' peak that a step uses, by its seconds, to log.
        """
        config = self.config
        if not config.data.sources:
            raise InputError(
                "config.data.sources is empty: name folders of photographs, .txt lists or "
                "ArrayRecord shards, such as --config.data.sources=\"('photos',)\""
            )
        check(self.blueprint, self.mesh)
        reader, count = own_reader(config.data.batch_size, self.mesh)
        pipeline = make_pipeline(
            config.data, config.seed, process_index=reader.number, process_count=count
        )
        batches = to_device(pipeline, batch_sharding(self.mesh))
        frozen = self.frozen()

        def step(state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, Metrics]:
            return self.step(state, frozen, batch)

        return Task(
            state=self.start(),
            shapes=self.layout.state,
            shardings=self.layout.state_sharding,
            step=step,
            batches=iter(batches),
            images=config.data.batch_size,
            rows=list(reader.rows),
            workers=pipeline.workers,
            utilisation=utilisation,
            validate=make_validator(self.blueprint, self.layout, frozen, metrics)
            if config.validation.sources
            else None,
            validate_every=config.validation.every,
        )

    def write_model(self, out: str, adapters: Weights, *, precision: str | None = None) -> None:
        """The base with a run's adapters, as a converted model: to upscale with, or to export.

        Weights keep the precision that they have, unless another one is asked for.
        """
        path = self.config.model.path
        base = converted.by_name_on_host(path) if path else jax.device_get(self.frozen())
        names = set(variables(self.blueprint.generator))
        params = {**base, **jax.device_get(adapters)}
        if precision:
            dtype = PRECISIONS[precision]
            params = {name: array.astype(dtype) for name, array in params.items()}
        converted.write(out, self.card, {name: params[name] for name in sorted(names)})

    @property
    def card(self) -> converted.ModelCard:
        """The description of the model that is trained."""
        model, generator = self.config.model, self.blueprint.generator_config
        size = model.process_size or self.config.data.resolution
        if not model.path:
            return converted.ModelCard(generator, size, prompt="")
        base = converted.read_card(model.path)
        origin = dataclasses.replace(base.origin, recipe="")  # its adapters are not published
        return dataclasses.replace(base, generator=generator, process_size=size, origin=origin)
