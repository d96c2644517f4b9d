"""The stages: a VAE that is fitted, and the prior as a task of the loop."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ... import architectures
from ...data import open_sources
from ...data.images import decode_image
from ...generator import OMGSR, make_vae
from ...models.pixel_vae import PixelVAEConfig, principal_components
from ...weights import fill
from ..blueprint import Weights
from ..loop import Metrics, Task
from .base import BACKBONE, Base
from .config import PretrainConfig
from .losses import denoising_loss
from .task import initial, make_task

_FITTED = 300  # images that the components are fitted to


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
    random = jax.device_get(initial(config, make_vae(of_vae, rngs=None)))
    begun = {name: np.zeros_like(array) for name, array in random.items() if "branch.conv2" in name}
    return random | begun | found.weights()


def prior_task(config: PretrainConfig, base: Base) -> Task:
    """The second stage, on the latents of the base's VAE."""
    generator = OMGSR(base.generator, rngs=None)
    frozen = {n: jnp.asarray(v) for n, v in base.params.items() if not n.startswith(BACKBONE)}

    def loss(weights: Weights, images: Array, key: Array) -> tuple[Array, Metrics]:
        named = {BACKBONE + name: array for name, array in weights.items()}
        return denoising_loss(fill(generator, frozen | named), images, key)

    return make_task(config, initial(config, generator.backbone), loss)
