"""What a run trains and remembers, and how it is made: shapes first, arrays where they belong."""

import math
import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from .. import converted, perceptual
from ..errors import InputError
from ..models import stack
from ..weights import variables
from .blueprint import HEADS, NETWORKS, TIMESTEP_HEAD, Blueprint, Shapes, Weights
from .config import OptimizerConfig, RunConfig, TrainConfig
from .layout import Layout


class TrainState(NamedTuple):
    """All of a run that changes. Frozen weights are not in it, nor in its checkpoints."""

    step: Array  # optimiser steps done
    generator: Weights  # the adapters of the encoder and the backbone, fp32
    discriminator: Weights  # heads, fp32
    spectral: Weights  # the vectors of their power iterations
    generator_optimizer: Any
    discriminator_optimizer: Any
    ema: Weights  # averaged adapters, if they are kept


def optimizer(config: OptimizerConfig, run: RunConfig) -> optax.GradientTransformation:
    """AdamW on gradients clipped by their global norm."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate(config, run),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
        ),
    )


def learning_rate(config: OptimizerConfig, run: RunConfig) -> optax.Schedule:
    """A rise over the warm-up, then a constant, which falls to 0 over the run's cool-down."""
    highest = config.learning_rate
    risen = optax.constant_schedule(highest)
    if config.warmup:
        risen = optax.linear_schedule(0.0, highest, config.warmup)
    if not run.cooldown:
        return risen
    falling = optax.linear_schedule(highest, 0.0, run.cooldown)
    return optax.join_schedules([risen, falling], [run.steps - run.cooldown])


def begin(config: TrainConfig, adapters: Weights, heads: Weights, spectral: Weights) -> TrainState:
    """The state before the first step."""
    adam = optimizer(config.optimizer, config.run)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        generator=adapters,
        discriminator=heads,
        spectral=spectral,
        generator_optimizer=adam.init(adapters),
        discriminator_optimizer=adam.init(heads),
        ema=jax.tree.map(jnp.copy, adapters) if config.optimizer.ema else {},
    )


def state_shapes(blueprint: Blueprint) -> TrainState:
    trained = (blueprint.adapters, blueprint.heads, blueprint.spectral)
    return jax.eval_shape(partial(begin, blueprint.config), *trained)


def make_state(blueprint: Blueprint, layout: Layout) -> TrainState:
    """The first state, with the base's own adapters or new ones; the same on every mesh."""
    sharding, seed = layout.state_sharding, blueprint.config.seed
    start = jax.jit(partial(begin, blueprint.config), out_shardings=sharding)
    return start(
        _adapters(blueprint, layout),
        random_weights(blueprint.heads, sharding.discriminator, seed),
        random_weights(blueprint.spectral, sharding.spectral, seed),
    )


def load_frozen(blueprint: Blueprint, layout: Layout) -> Weights:
    """The frozen weights, read shard by shard."""
    config = blueprint.config
    if not config.model.path:
        return _random_frozen(blueprint, layout)
    names = set(converted.stored_shapes(config.model.path)) & set(blueprint.frozen)
    params = _read(config.model.path, names, layout)
    return _cast(params, layout) | _load_networks(blueprint, layout)


def _adapters(blueprint: Blueprint, layout: Layout) -> Weights:
    """All that is trained of the generator: what the base has of it, and the rest at random."""
    path, sharding = blueprint.config.model.path, layout.state_sharding.generator
    stored = set(converted.stored_shapes(path)) if path else set()
    new = {name: shape for name, shape in blueprint.adapters.items() if name not in stored}
    begun = random_weights(new, sharding, blueprint.config.seed)
    known = stored & set(blueprint.adapters)
    return begun | (_read(path, known, layout) if known else {})


def _read(path: str, names: set[str], layout: Layout) -> Weights:
    """Some of a converted model's weights."""
    sharding = layout.weights
    stored = converted.stored_shapes(path)
    wanted = {name: stored[name] for name in names}
    return converted.read_weights(path, wanted, sharding=sharding.__getitem__, part=True)


def _load_networks(blueprint: Blueprint, layout: Layout) -> Weights:
    parts, model = sorted(blueprint.networks), blueprint.config.model
    if not parts:
        return {}
    networks = perceptual.read(
        model.perceptual,
        parts,
        precision=model.precision,
        sharding=lambda name: layout.frozen_sharding[f"{NETWORKS}{name}"],
    )
    return {
        f"{NETWORKS}{part}.{name}": leaf[...]
        for part in parts
        for name, leaf in variables(getattr(networks, part)).items()
    }


def _cast(params: Weights, layout: Layout) -> Weights:
    dtypes = {name: layout.frozen[name].dtype for name in params}
    shardings = {name: layout.frozen_sharding[name] for name in params}
    cast = jax.jit(
        lambda params: {name: array.astype(dtypes[name]) for name, array in params.items()},
        out_shardings=shardings,
        donate_argnums=0,
    )
    return cast(params)


def _random_frozen(blueprint: Blueprint, layout: Layout) -> Weights:
    """A base of random weights, always the same ones."""
    if blueprint.networks:
        raise InputError(
            f"config.model.architecture has random weights, but the losses need trained networks "
            f"({', '.join(blueprint.networks)}): set config.model.perceptual, or take losses "
            "that look through vae_encoder, and a discriminator through it or pixels"
        )

    return random_weights(layout.frozen, layout.frozen_sharding, 0)


def random_weights(shapes: Shapes, shardings: Mapping[str, Any], seed: int) -> Weights:
    """Initial values, made on the host from (seed, name): the same on every mesh."""

    def make(name: str, shape: jax.ShapeDtypeStruct) -> Array:
        kernel = shapes.get(name.removesuffix("bias") + "kernel", shape)
        values = _initial(name, shape.shape, seed, kernel.shape).astype(shape.dtype)
        return jax.make_array_from_callback(
            shape.shape, shardings[name], lambda index: values[index]
        )

    return {name: make(name, shape) for name, shape in shapes.items()}


def _initial(name: str, shape: tuple[int, ...], seed: int, kernel: tuple[int, ...]) -> np.ndarray:
    """PyTorch's and peft's initial values, by what a weight is called. `kernel` is the shape of the
    kernel beside it; biases of networks that are not trained themselves are 0."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    kind = name.rsplit(".", 1)[-1]
    if name.endswith("lora_A.kernel"):
        return rng.standard_normal(shape, np.float32) / shape[-1]
    if name.endswith("lora_B.kernel") or name == f"{TIMESTEP_HEAD}out.kernel":
        return np.zeros(shape, np.float32)
    if kind == "kernel" or (kind == "bias" and name.startswith(HEADS)):
        limit = (math.prod(kernel[:-1]) / stack.depth(name, kernel)) ** -0.5
        return rng.uniform(-limit, limit, shape).astype(np.float32)
    if kind in ("u", "v"):  # singular vectors
        vector = rng.standard_normal(shape, np.float32)
        return vector / np.linalg.norm(vector)
    if name.startswith("prompt."):
        return rng.standard_normal(shape, np.float32)
    return np.full(shape, 1.0 if kind == "scale" else 0.0, np.float32)
