"""What the prior hands to the loop: a state, data, and a step for any loss of weights."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from ...compile_options import compiler_options
from ...data import make_pipeline, signed, to_device
from ...weights import variables
from ..blueprint import Weights, shapes
from ..layout import batch_sharding, data_mesh, own_reader, replicated
from ..loop import Metrics, Task
from ..skipping import unless_not_finite
from ..state import optimizer, random_weights
from .config import PretrainConfig

Loss = Callable[[Weights, Array, Array], tuple[Array, Metrics]]  # weights, images, key


class PretrainState(NamedTuple):
    """All of the prior's training that changes."""

    step: Array  # optimiser steps done
    weights: Weights
    optimizer: Any
    ema: Weights  # the average that OMGSR takes


def make_task(config: PretrainConfig, weights: Weights, loss: Loss) -> Task:
    mesh = data_mesh()
    everywhere = replicated(mesh)
    begin = partial(_begin, config)
    reader, _ = own_reader(config.data.batch_size, mesh)
    pipeline = make_pipeline(config.data, config.seed)
    batches = to_device(pipeline, batch_sharding(mesh))
    state_shapes = jax.eval_shape(begin, weights)
    return Task(
        state=jax.jit(begin, out_shardings=everywhere)(weights),
        shapes=state_shapes,
        shardings=jax.tree.map(lambda _: everywhere, state_shapes),
        step=_compile_ready(config, loss, mesh),
        batches=iter(batches),
        images=config.data.batch_size,
        rows=list(reader.rows),
        workers=pipeline.workers,
    )


def initial(config: PretrainConfig, network: nnx.Module) -> Weights:
    sizes = shapes(variables(network))
    everywhere = replicated(data_mesh())
    return random_weights(sizes, dict.fromkeys(sizes, everywhere), config.seed)


def _begin(config: PretrainConfig, weights: Weights) -> PretrainState:
    return PretrainState(
        step=jnp.zeros((), jnp.int32),
        weights=weights,
        optimizer=optimizer(config.optimizer, config.run).init(weights),
        ema=jax.tree.map(jnp.copy, weights),
    )


def _compile_ready(config: PretrainConfig, loss: Loss, mesh: Mesh) -> Any:
    adam = optimizer(config.optimizer, config.run)

    def step(state: PretrainState, levels: Array) -> tuple[PretrainState, Metrics]:
        images = signed(levels)
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.weights, images, key
        )
        update, opt = adam.update(gradient, state.optimizer, state.weights)
        weights = optax.apply_updates(state.weights, update)
        # Young averages forget faster: the first weights are random.
        decay = jnp.minimum(config.optimizer.ema, (1 + state.step) / (10 + state.step))
        ema = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.ema, weights)
        new = PretrainState(state.step + 1, weights, opt, ema)
        metrics = {**terms, "loss": value, "gradient": optax.global_norm(gradient)}
        return (
            unless_not_finite(state, new, metrics) if config.run.skip_not_finite else (new, metrics)
        )

    everywhere = replicated(mesh)
    compiled = jax.jit(
        step,
        in_shardings=(everywhere, batch_sharding(mesh)),
        out_shardings=everywhere,
        donate_argnums=0,
        compiler_options=compiler_options(mesh),
    )
    return lambda state, batch: compiled(state, batch["hr"])
