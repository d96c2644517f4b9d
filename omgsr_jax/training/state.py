"""What a run trains and remembers, and how it is made: shapes first, arrays where they belong."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax import Array
from jax.sharding import Mesh

from .. import converted, perceptual
from ..errors import InputError
from ..models import stack
from ..storage import PARAMS, restore
from ..weights import variables
from .blueprint import Blueprint, Shapes, Weights
from .config import OptimizerConfig, TrainConfig
from .layout import gathering, place


class TrainState(NamedTuple):
    """All of a run that changes. Frozen weights are not in it, nor in its checkpoints."""

    step: Array  # optimiser steps done
    generator: Weights  # the adapters of the encoder and the backbone, fp32
    discriminator: Weights  # heads, fp32
    spectral: Weights  # the vectors of their power iterations
    generator_optimizer: Any
    discriminator_optimizer: Any
    ema: Weights  # averaged adapters, if they are kept


def optimizer(config: OptimizerConfig, *, published: bool) -> optax.GradientTransformation:
    """AdamW on gradients clipped by their global norm; the published schedule has no warm-up."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate(config, published=published),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
        ),
    )


def learning_rate(config: OptimizerConfig, *, published: bool) -> optax.Schedule:
    if published or not config.warmup:
        return optax.constant_schedule(config.learning_rate)
    return optax.linear_schedule(0.0, config.learning_rate, config.warmup)


def begin(config: TrainConfig, adapters: Weights, heads: Weights, spectral: Weights) -> TrainState:
    """The state before the first step."""
    adam = optimizer(config.optimizer, published=config.published)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        generator=adapters,
        discriminator=heads,
        spectral=spectral,
        generator_optimizer=adam.init(adapters),
        discriminator_optimizer=adam.init(heads),
        ema=jax.tree.map(jnp.copy, adapters) if config.optimizer.ema else {},
    )


class Placed(NamedTuple):
    """Shapes of the state and of the frozen weights, and where each of them goes."""

    state: TrainState
    frozen: dict[str, jax.ShapeDtypeStruct]
    state_sharding: TrainState
    frozen_sharding: dict[str, Any]


def placed(blueprint: Blueprint, mesh: Mesh) -> Placed:
    """Nothing is allocated here."""
    trained = (blueprint.adapters, blueprint.heads, blueprint.spectral)
    state = jax.eval_shape(partial(begin, blueprint.config), *trained)
    shardings = place((state, blueprint.frozen), blueprint.config.sharding, mesh)
    return Placed(state, blueprint.frozen, *shardings)


def on_mesh(blueprint: Blueprint, where: Placed) -> Blueprint:
    """The blueprint of the same networks, which know how to compute with weights that are there."""
    shardings = where.frozen_sharding | where.state_sharding.generator
    return replace(blueprint, generator=gathering(blueprint.generator, shardings))


def make_state(blueprint: Blueprint, where: Placed, adapters: Weights | None = None) -> TrainState:
    """The first state, with new adapters or those that the base has; the same on every mesh."""
    sharding, seed = where.state_sharding, blueprint.config.seed
    start = jax.jit(partial(begin, blueprint.config), out_shardings=sharding)
    return start(
        _adapters(blueprint, where, adapters or {}),
        random_weights(blueprint.heads, sharding.discriminator, seed),
        random_weights(blueprint.spectral, sharding.spectral, seed),
    )


def _adapters(blueprint: Blueprint, where: Placed, known: Weights) -> Weights:
    """All that is trained of the generator: what the base has, and the rest at random."""
    new = {name: shape for name, shape in blueprint.adapters.items() if name not in known}
    return random_weights(new, where.state_sharding.generator, blueprint.config.seed) | known


def load_frozen(blueprint: Blueprint, where: Placed) -> tuple[Weights, Weights]:
    """The frozen weights, read shard by shard, and the adapters that the base has already."""
    config = blueprint.config
    if not config.model.path:
        return _random_frozen(blueprint, where), {}
    stored = set(converted.stored_shapes(config.model.path))
    everywhere = where.frozen_sharding | where.state_sharding.generator
    params = restore(
        epath.Path(config.model.path) / PARAMS,
        stored,
        lambda name: everywhere[name],
    )
    adapters = {name: params[name] for name in sorted(stored & set(blueprint.adapters))}
    for name in adapters:
        if name in where.frozen:  # a part of the VAE: it is trained, and gives the targets
            adapters[name] = jnp.copy(params[name])
        else:
            del params[name]
    return _cast(params, where) | _load_networks(config, where), adapters


def _load_networks(config: TrainConfig, where: Placed) -> Weights:
    parts = sorted({name.split(".")[1] for name in where.frozen if name.startswith("networks.")})
    if not parts:
        return {}
    networks = perceptual.read(
        config.model.perceptual,
        parts,
        precision=config.model.precision,
        sharding=lambda name: where.frozen_sharding[f"networks.{name}"],
        quirks=config.published,
    )
    return {
        f"networks.{part}.{name}": leaf[...]
        for part in parts
        for name, leaf in variables(getattr(networks, part)).items()
    }


def _cast(params: Weights, where: Placed) -> Weights:
    dtypes = {name: where.frozen[name].dtype for name in params}
    shardings = {name: where.frozen_sharding[name] for name in params}
    cast = jax.jit(
        lambda params: {name: array.astype(dtypes[name]) for name, array in params.items()},
        out_shardings=shardings,
        donate_argnums=0,
    )
    return cast(params)


def _random_frozen(blueprint: Blueprint, where: Placed) -> Weights:
    """A base of random weights, always the same ones."""
    if blueprint.networks:
        raise InputError(
            f"config.model.architecture has random weights, but the losses need trained networks "
            f"({', '.join(blueprint.networks)}): set config.model.perceptual, or take losses "
            "that look through vae_encoder, and a discriminator through it or pixels"
        )

    return random_weights(where.frozen, where.frozen_sharding, 0)


def random_weights(shapes: Shapes, shardings: Mapping[str, Any], seed: int) -> Weights:
    """Initial values, drawn on the host by (seed, name): the same on every mesh."""

    def make(name: str, shape: jax.ShapeDtypeStruct) -> Array:
        values = _initial(name, shape.shape, seed).astype(shape.dtype)
        return jax.make_array_from_callback(
            shape.shape, shardings[name], lambda index: values[index]
        )

    return {name: make(name, shape) for name, shape in shapes.items()}


def _initial(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """PyTorch's and peft's initial values, by what a weight is called."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    kind = name.rsplit(".", 1)[-1]
    if name.endswith("lora_A.kernel"):
        return rng.standard_normal(shape, np.float32) / shape[-1]
    if name.endswith("lora_B.kernel"):
        return np.zeros(shape, np.float32)
    if kind == "kernel":
        limit = (math.prod(shape[:-1]) / stack.depth(name, shape)) ** -0.5
        return rng.uniform(-limit, limit, shape).astype(np.float32)
    if kind in ("u", "v"):  # singular vectors
        vector = rng.standard_normal(shape, np.float32)
        return vector / np.linalg.norm(vector)
    if name.startswith("prompt."):
        return rng.standard_normal(shape, np.float32)
    return np.full(shape, 1.0 if kind == "scale" else 0.0, np.float32)
