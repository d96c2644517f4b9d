"""Making a base from nothing: a VAE that is fitted, and a diffusion prior on its latents.

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

from .. import architectures, converted
from ..data import make_pipeline, open_sources, to_device
from ..data.images import decode_image
from ..generator import OMGSR, AnyVAE, OMGSRConfig, make_vae
from ..models.layers import normal
from ..models.pixel_vae import PixelVAEConfig, principal_components
from ..weights import below, fill, variables
from .blueprint import Weights, shapes
from .config import (
    DataConfig,
    MeshConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from .layout import batch_sharding, make_mesh, replicated, rows_by_process
from .loop import Metrics, Task
from .state import optimizer, random_weights
from .step import CPU_OPTIONS

_FITTED = 300  # images that the components are fitted to

_VAE, _BACKBONE = "vae.", "backbone."  # weights' names

Loss = Callable[[Weights, Array, Array], tuple[Array, Metrics]]  # weights, images, key


@dataclass(frozen=True)
class PretrainConfig:
    """How the VAE is fitted and the prior is trained."""

    name: str = "unnamed"
    seed: int = 0
    architecture: str = "nano"
    whitening: float = 0.6  # of the VAE's components, see models.pixel_vae
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    run: RunConfig = field(default_factory=RunConfig)


class PretrainState(NamedTuple):
    """All of the prior's training that changes."""

    step: Array  # optimiser steps done
    weights: Weights
    optimizer: Any
    ema: Weights  # the average that OMGSR takes


def denoising_loss(generator: OMGSR, images: Array, key: Array) -> tuple[Array, Metrics]:
    """The error of the predicted noise at random timesteps (Eq. 2)."""
    for_z, for_t, for_eps = jax.random.split(key, 3)
    z = jax.lax.stop_gradient(generator.encode(images, for_z))
    eps = normal(for_eps, z.shape)
    t = jax.random.randint(for_t, z.shape[:1], 0, generator.process.timesteps)
    predicted = generator.predict(generator.process.noised(z, eps, t), t)
    error = jnp.square(predicted.astype(jnp.float32) - eps).mean()
    return error, {"noise": error}


def fitted_vae(config: PretrainConfig) -> dict[str, np.ndarray]:
    """The first stage: the weights of a VAE whose components are those of the sources' images."""
    of_vae = architectures.named(config.architecture).vae
    assert isinstance(of_vae, PixelVAEConfig)
    source = open_sources(config.data.sources)
    chosen = range(0, len(source), max(1, len(source) // _FITTED))
    images = [decode_image(data, name) for name, data in (source[i] for i in chosen)]
    side = min(min(image.shape[:2]) for image in images) // of_vae.patch * of_vae.patch
    pixels = np.stack([image[:side, :side] for image in images]).astype(np.float32)  # b h w 3
    found = principal_components(pixels / 127.5 - 1, of_vae, config.whitening)
    random = jax.device_get(_random(config, make_vae(of_vae, rngs=None)))
    begun = {name: np.zeros_like(array) for name, array in random.items() if "branch.conv2" in name}
    return random | begun | found.weights()


def prior_task(config: PretrainConfig, base: "Base") -> Task:
    """The second stage, on the latents of the base's VAE."""
    generator = OMGSR(base.generator, rngs=None)
    frozen = {n: jnp.asarray(v) for n, v in base.params.items() if not n.startswith(_BACKBONE)}

    def loss(weights: Weights, images: Array, key: Array) -> tuple[Array, Metrics]:
        named = {_BACKBONE + name: array for name, array in weights.items()}
        return denoising_loss(fill(generator, frozen | named), images, key)

    return _task(config, _random(config, generator.backbone), loss)


class Base(NamedTuple):
    """What the stages make: the weights of a generator without adapters, by name."""

    generator: OMGSRConfig
    params: dict[str, np.ndarray]

    @property
    def vae(self) -> AnyVAE:
        return fill(make_vae(self.generator.vae, rngs=None), below(_VAE, self.params))

    def with_prior(self, weights: Mapping[str, Any]) -> "Base":
        named = {_BACKBONE + name: np.asarray(array) for name, array in weights.items()}
        return self._replace(params=self.params | named)

    def write(self, out: str | Path, *, mid_timestep: int, process_size: int) -> None:
        """Writes a converted model."""
        generator = dataclasses.replace(self.generator, mid_timestep=mid_timestep)
        card = converted.ModelCard(generator, process_size, "", color="wavelet")
        converted.write(out, card, self.params)


def base_of(config: PretrainConfig, vae: Mapping[str, Any]) -> Base:
    """A base with this VAE and a random backbone."""
    generator = architectures.named(config.architecture)
    params = jax.device_get(_random(config, OMGSR(generator, rngs=None)))
    return Base(generator, params | {_VAE + name: np.asarray(v) for name, v in vae.items()})


def _random(config: PretrainConfig, network: nnx.Module) -> Weights:
    sizes = shapes(variables(network))
    everywhere = replicated(make_mesh(MeshConfig()))
    return random_weights(sizes, dict.fromkeys(sizes, everywhere), config.seed)


def _task(config: PretrainConfig, weights: Weights, loss: Loss) -> Task:
    mesh = make_mesh(MeshConfig())
    everywhere = replicated(mesh)
    begin = partial(_begin, config)
    pipeline = TrainConfig(seed=config.seed, data=config.data).pipeline()
    batches = to_device(make_pipeline(pipeline), pipeline, batch_sharding(mesh))
    state_shapes = jax.eval_shape(begin, weights)
    return Task(
        state=jax.jit(begin, out_shardings=everywhere)(weights),
        shapes=state_shapes,
        shardings=jax.tree.map(lambda _: everywhere, state_shapes),
        step=_compile_ready(config, loss, mesh),
        batches=iter(batches),
        images=config.data.batch_size,
        rows=rows_by_process(config.data.batch_size, mesh)[jax.process_index()],
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
        compiler_options=CPU_OPTIONS if mesh.devices.flat[0].platform == "cpu" else None,
    )
    return lambda state, batch: compiled(state, batch["hr"])
