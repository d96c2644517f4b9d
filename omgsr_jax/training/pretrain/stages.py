"""The stages as tasks of the loop."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ... import architectures
from ...generator import OMGSR
from ...models.vae import VAE
from ...weights import fill
from ..blueprint import Weights
from ..config import require_room_for_textures
from ..loop import Metrics, Task
from ..validation import Metric, unit
from .base import BACKBONE, Base, fixed_images
from .config import PretrainConfig
from .losses import autoencoding_loss, denoising_loss, recoloured, texture_loss
from .task import PretrainState, initial, make_task

_DECODER = "decoder."  # weights' names


def vae_task(config: PretrainConfig, psnr: Metric) -> Task:
    """The first stage: nothing is known yet."""
    vae = VAE(architectures.named(config.architecture).vae, rngs=None)

    def loss(weights: Weights, images: Array, key: Array) -> tuple[Array, Metrics]:
        filled = fill(vae, weights)
        return autoencoding_loss(filled, images, key, kl=config.kl, edges=config.edges)

    validate = _reconstruction(config, partial(fill, vae), psnr)
    return make_task(config, initial(config, vae), loss, validate)


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

    return make_task(config, _part(trained, _DECODER), loss, _reconstruction(config, refined, psnr))


def with_decoder(vae: Weights, stage: Weights) -> Weights:
    """A VAE's weights with the decoder that the second stage trained."""
    return {**vae, **_part(stage, _DECODER)}


def prior_task(config: PretrainConfig, base: Base) -> Task:
    """The third stage, on the latents of the base's VAE."""
    generator = OMGSR(base.generator, rngs=None)
    frozen = {n: jnp.asarray(v) for n, v in base.params.items() if not n.startswith(BACKBONE)}

    def loss(weights: Weights, images: Array, key: Array) -> tuple[Array, Metrics]:
        named = {BACKBONE + name: array for name, array in weights.items()}
        return denoising_loss(fill(generator, frozen | named), images, key)

    return make_task(config, initial(config, generator.backbone), loss, None)


def _part(weights: Weights, prefix: str) -> Weights:
    return {name: array for name, array in weights.items() if name.startswith(prefix)}


def _reconstruction(config: PretrainConfig, rebuild: Callable[[Weights], VAE], psnr: Metric) -> Any:
    if not config.validation.sources:
        return None
    images = fixed_images(config)
    restore = jax.jit(
        lambda weights, x: (lambda vae: vae.decode(vae.encode(x).mode()))(rebuild(weights))
    )

    def validate(state: PretrainState) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        restored = np.asarray(restore(state.ema, images))
        found = float(np.mean(jax.device_get(psnr(unit(restored), unit(images)))))
        return {"psnr": found}, {}

    return validate
