"""Making a base from nothing: a VAE, then a diffusion prior on its latents.

OMGSR adapts a pre-trained base. Where none may be shipped, a small one is trained here, with the
loop, the data and the checkpoints that fine-tuning uses too.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from .. import checkpoint
from ..data import make_pipeline, to_device
from ..generator import OMGSR, OMGSRConfig
from ..losses.pixel import l1
from ..models.layers import normal
from ..models.vae import VAE
from . import architectures
from .blueprint import Weights, shapes
from .config import (
    DataConfig,
    MeshConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    ValidationConfig,
)
from .loop import Metrics, Task
from .sharding import batch_sharding, make_mesh, replicated, rows_by_process
from .state import optimizer, random_weights
from .validation import Metric, fixed_pairs, unit

_VAE, _BACKBONE = "vae.", "backbone."  # how the names of their weights begin

Loss = Callable[[Weights, Array, Array], tuple[Array, Metrics]]  # weights, images, key


@dataclass(frozen=True)
class PretrainConfig:
    """One of the two stages. The prior's needs a base that has a VAE already."""

    name: str = "unnamed"
    seed: int = 0
    architecture: str = "nano"
    kl: float = 1e-6  # of the VAE's posterior
    edges: float = 1.0  # of the error in the differences between neighbouring pixels
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    run: RunConfig = field(default_factory=RunConfig)


class PretrainState(NamedTuple):
    """All of a stage that changes."""

    step: Array  # optimiser steps done
    weights: Weights
    optimizer: Any
    ema: Weights  # the average that the next stage takes


def autoencoding_loss(
    vae: VAE, images: Array, key: Array, *, kl: float, edges: float
) -> tuple[Array, Metrics]:
    """How far images are from their reconstruction, in pixels and in edges, and the posterior from
    a standard Gaussian."""
    posterior = vae.encode(images)
    restored = vae.decode(posterior.sample(key)).astype(jnp.float32)
    divergence = 0.5 * jnp.mean(
        jnp.square(posterior.mean) + jnp.exp(posterior.logvar) - 1 - posterior.logvar
    )
    terms = {
        "l1": l1(restored, images),
        "edges": sum(l1(jnp.diff(restored, axis=i), jnp.diff(images, axis=i)) for i in (1, 2)),
        "kl": divergence,
    }
    return terms["l1"] + edges * terms["edges"] + kl * divergence, terms


def denoising_loss(generator: OMGSR, images: Array, key: Array) -> tuple[Array, Metrics]:
    """The error of the predicted noise at random timesteps (Eq. 2)."""
    for_z, for_t, for_eps = jax.random.split(key, 3)
    z = jax.lax.stop_gradient(generator.encode(images, for_z))
    eps = normal(for_eps, z.shape)
    t = jax.random.randint(for_t, z.shape[:1], 0, generator.process.timesteps)
    predicted = generator.predict(generator.process.noised(z, eps, t), t)
    error = jnp.square(predicted.astype(jnp.float32) - eps).mean()
    return error, {"noise": error}


def vae_task(config: PretrainConfig, psnr: Metric) -> Task:
    """The first stage: nothing is known yet."""
    vae = VAE(architectures.named(config.architecture).vae, rngs=None)

    def loss(weights: Weights, images: Array, key: Array) -> tuple[Array, Metrics]:
        filled = checkpoint.fill(vae, weights)
        return autoencoding_loss(filled, images, key, kl=config.kl, edges=config.edges)

    validate = _reconstruction(config, vae, psnr) if config.validation.sources else None
    return _task(config, vae, loss, validate)


def prior_task(config: PretrainConfig, base: "Base") -> Task:
    """The second stage, on the latents of the base's VAE."""
    generator = OMGSR(base.generator, rngs=None)
    frozen = {n: jnp.asarray(v) for n, v in base.params.items() if not n.startswith(_BACKBONE)}

    def loss(weights: Weights, images: Array, key: Array) -> tuple[Array, Metrics]:
        named = {_BACKBONE + name: array for name, array in weights.items()}
        return denoising_loss(checkpoint.fill(generator, frozen | named), images, key)

    return _task(config, generator.backbone, loss, None)


class Base(NamedTuple):
    """What the stages make: the weights of a generator without adapters, by name."""

    generator: OMGSRConfig
    params: dict[str, np.ndarray]

    @property
    def vae(self) -> VAE:
        found = {n.removeprefix(_VAE): v for n, v in self.params.items() if n.startswith(_VAE)}
        return checkpoint.fill(VAE(self.generator.vae, rngs=None), found)

    def with_prior(self, weights: Mapping[str, Any]) -> "Base":
        named = {_BACKBONE + name: np.asarray(array) for name, array in weights.items()}
        return self._replace(params=self.params | named)

    def write(self, out: str | Path, *, mid_timestep: int, process_size: int) -> None:
        """Writes a converted model."""
        generator = dataclasses.replace(self.generator, mid_timestep=mid_timestep)
        checkpoint.write(out, checkpoint.ModelCard(generator, process_size, ""), self.params)


def base_of(config: PretrainConfig, vae: Mapping[str, Any]) -> Base:
    """A base with this VAE, whose latents are scaled to unit variance, and a random backbone."""
    generator = architectures.named(config.architecture)
    sizes = shapes(checkpoint.weights(OMGSR(generator, rngs=None)))
    everywhere = replicated(make_mesh(MeshConfig()))
    params = jax.device_get(random_weights(sizes, dict.fromkeys(sizes, everywhere), config.seed))
    params |= {_VAE + name: np.asarray(array) for name, array in vae.items()}
    encode = jax.jit(lambda images: Base(generator, params).vae.encode(images).mode())
    scale = float(1 / np.std(encode(fixed_images(config))))
    scaled = dataclasses.replace(generator.vae, scaling_factor=scale)
    return Base(dataclasses.replace(generator, vae=scaled), params)


def _task(config: PretrainConfig, network: nnx.Module, loss: Loss, validate: Any) -> Task:
    mesh = make_mesh(MeshConfig())
    sizes = shapes(checkpoint.weights(network))
    everywhere = replicated(mesh)
    begin = partial(_begin, config)
    weights = random_weights(sizes, dict.fromkeys(sizes, everywhere), config.seed)
    pipeline = TrainConfig(seed=config.seed, data=config.data).pipeline()
    batches = to_device(make_pipeline(pipeline), pipeline, batch_sharding(mesh))
    state_shapes = jax.eval_shape(begin, sizes)
    return Task(
        state=jax.jit(begin, out_shardings=everywhere)(weights),
        shapes=state_shapes,
        shardings=jax.tree.map(lambda _: everywhere, state_shapes),
        step=_compile_ready(config, loss, mesh),
        batches=iter(batches),
        images=config.data.batch_size,
        rows=rows_by_process(config.data.batch_size, mesh)[jax.process_index()],
        validate=validate,
        validate_every=config.validation.every,
    )


def _begin(config: PretrainConfig, weights: Weights) -> PretrainState:
    return PretrainState(
        step=jnp.zeros((), jnp.int32),
        weights=weights,
        optimizer=optimizer(config.optimizer, published=False).init(weights),
        ema=jax.tree.map(jnp.copy, weights),
    )


def _compile_ready(config: PretrainConfig, loss: Loss, mesh: Mesh) -> Any:
    adam = optimizer(config.optimizer, published=False)

    def step(state: PretrainState, images: Array) -> tuple[PretrainState, Metrics]:
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
        return new, {**terms, "loss": value, "gradient": optax.global_norm(gradient)}

    everywhere = replicated(mesh)
    compiled = jax.jit(
        step,
        in_shardings=(everywhere, batch_sharding(mesh)),
        out_shardings=everywhere,
        donate_argnums=0,
    )
    return lambda state, batch: compiled(state, batch["hr"])


def _reconstruction(config: PretrainConfig, vae: VAE, psnr: Metric) -> Any:
    images = fixed_images(config)
    restore = jax.jit(
        lambda weights, x: (lambda m: m.decode(m.encode(x).mode()))(checkpoint.fill(vae, weights))
    )

    def validate(state: PretrainState) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        restored = np.asarray(restore(state.ema, images))
        found = float(np.mean(jax.device_get(psnr(unit(restored), unit(images)))))
        return {"psnr": found}, {}

    return validate


def fixed_images(config: PretrainConfig) -> np.ndarray:
    return fixed_pairs(TrainConfig(data=config.data, validation=config.validation))[1]
