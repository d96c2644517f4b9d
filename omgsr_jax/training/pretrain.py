"""Making a base from nothing: a VAE, textures for its decoder, a diffusion prior on its latents.

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
from ..losses.pixel import l1
from ..losses.texture import texture
from ..models.layers import normal
from ..models.pixel_vae import PixelVAEConfig, principal_components
from ..models.vae import VAE
from ..weights import below, fill, variables
from .blueprint import Weights, shapes
from .config import (
    DataConfig,
    MeshConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    ValidationConfig,
    require_room_for_textures,
)
from .layout import batch_sharding, make_mesh, replicated, rows_by_process
from .loop import Metrics, Task
from .state import optimizer, random_weights
from .step import CPU_OPTIONS
from .validation import Metric, fixed_pairs, unit

_FITTED = 300  # images that the components are fitted to

_VAE, _BACKBONE, _DECODER = "vae.", "backbone.", "decoder."  # weights' names

Loss = Callable[[Weights, Array, Array], tuple[Array, Metrics]]  # weights, images, key


@dataclass(frozen=True)
class PretrainConfig:
    """One of the stages. The decoder's and the prior's need a VAE that has been trained already."""

    name: str = "unnamed"
    seed: int = 0
    architecture: str = "nano"
    whitening: float = 0.6  # of the VAE's components, see models.pixel_vae
    kl: float = 1e-6  # of the VAE's posterior
    edges: float = 1.0  # of the error in the differences between neighbouring pixels
    texture: float = 1.0  # in the decoder's stage
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
    error, terms = _error(restored, images, edges)
    return error + kl * divergence, {**terms, "kl": divergence}


def texture_loss(
    vae: VAE, images: Array, key: Array, *, edges: float, weight: float
) -> tuple[Array, Metrics]:
    """How far images are from their reconstruction, pixel by pixel and in their textures."""
    for_z, for_texture = jax.random.split(key)
    restored = vae.decode(vae.encode(images).sample(for_z)).astype(jnp.float32)
    error, terms = _error(restored, images, edges)
    terms["texture"] = texture(restored, images, for_texture)
    return error + weight * terms["texture"], terms


def _error(restored: Array, images: Array, edges: float) -> tuple[Array, dict[str, Array]]:
    down, across = (l1(jnp.diff(restored, axis=i), jnp.diff(images, axis=i)) for i in (1, 2))
    terms = {"l1": l1(restored, images), "edges": down + across}
    return terms["l1"] + edges * terms["edges"], terms


def recoloured(images: Array, key: Array) -> Array:
    """Images of which half, drawn at random, have their red, green and blue exchanged at random and
    their colours made weaker or stronger: few photographs show few colours."""

    def recolour(image: Array, key: Array) -> Array:  # h w 3
        for_order, for_strength, for_choice = jax.random.split(key, 3)
        moved = image[..., jax.random.permutation(for_order, 3)]
        grey = moved.mean(-1, keepdims=True)
        strength = jax.random.uniform(for_strength, minval=0.5, maxval=2.0)
        moved = jnp.clip(grey + strength * (moved - grey), -1, 1)
        return jnp.where(jax.random.bernoulli(for_choice), moved, image)

    return jax.vmap(recolour)(images, jax.random.split(key, len(images)))


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
        filled = fill(vae, weights)
        return autoencoding_loss(filled, images, key, kl=config.kl, edges=config.edges)

    validate = _reconstruction(config, partial(fill, vae), psnr)
    return _task(config, _random(config, vae), loss, validate)


def decoder_task(config: PretrainConfig, trained: Weights, psnr: Metric) -> Task:
    """The second stage: a trained VAE's decoder learns textures.

    Absolute errors alone teach it to leave out whatever it is not sure of, such as a photograph's
    grain, and to make colours paler that are rare. The encoder stays, and with it the latents.
    """
    require_room_for_textures(config.data.resolution)
    vae = VAE(architectures.named(config.architecture).vae, rngs=None)
    trained = {name: jnp.asarray(array) for name, array in trained.items()}

    def refined(weights: Weights) -> VAE:
        return fill(vae, with_decoder(trained, weights))

    def loss(weights: Weights, images: Array, key: Array) -> tuple[Array, Metrics]:
        for_colours, key = jax.random.split(key)
        images = recoloured(images, for_colours)
        return texture_loss(
            refined(weights), images, key, edges=config.edges, weight=config.texture
        )

    return _task(config, _part(trained, _DECODER), loss, _reconstruction(config, refined, psnr))


def with_decoder(vae: Weights, stage: Weights) -> Weights:
    """A VAE's weights with the decoder that the second stage trained."""
    return {**vae, **_part(stage, _DECODER)}


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
    """The third stage, on the latents of the base's VAE."""
    generator = OMGSR(base.generator, rngs=None)
    frozen = {n: jnp.asarray(v) for n, v in base.params.items() if not n.startswith(_BACKBONE)}

    def loss(weights: Weights, images: Array, key: Array) -> tuple[Array, Metrics]:
        named = {_BACKBONE + name: array for name, array in weights.items()}
        return denoising_loss(fill(generator, frozen | named), images, key)

    return _task(config, _random(config, generator.backbone), loss, None)


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


def _part(weights: Weights, prefix: str) -> Weights:
    return {name: array for name, array in weights.items() if name.startswith(prefix)}


def _random(config: PretrainConfig, network: nnx.Module) -> Weights:
    sizes = shapes(variables(network))
    everywhere = replicated(make_mesh(MeshConfig()))
    return random_weights(sizes, dict.fromkeys(sizes, everywhere), config.seed)


def _task(config: PretrainConfig, weights: Weights, loss: Loss, validate: Any) -> Task:
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
        compiler_options=CPU_OPTIONS if mesh.devices.flat[0].platform == "cpu" else None,
    )
    return lambda state, batch: compiled(state, batch["hr"])


def _reconstruction(config: PretrainConfig, fill: Callable[[Weights], VAE], psnr: Metric) -> Any:
    if not config.validation.sources:
        return None
    images = fixed_images(config)
    restore = jax.jit(
        lambda weights, x: (lambda vae: vae.decode(vae.encode(x).mode()))(fill(weights))
    )

    def validate(state: PretrainState) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        restored = np.asarray(restore(state.ema, images))
        found = float(np.mean(jax.device_get(psnr(unit(restored), unit(images)))))
        return {"psnr": found}, {}

    return validate


def fixed_images(config: PretrainConfig) -> np.ndarray:
    return fixed_pairs(TrainConfig(data=config.data, validation=config.validation))[1]
