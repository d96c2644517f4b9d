"""What the stages make: a generator without adapters."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ... import architectures, converted
from ...generator import OMGSR, AnyVAE, OMGSRConfig, make_vae
from ...weights import below, fill
from .config import PretrainConfig
from .task import initial

_VAE, BACKBONE = "vae.", "backbone."  # weights' names


class Base(NamedTuple):
    """What the stages make: the weights of a generator without adapters, by name."""

    generator: OMGSRConfig
    params: dict[str, np.ndarray]

    @property
    def vae(self) -> AnyVAE:
        return fill(make_vae(self.generator.vae, rngs=None), below(_VAE, self.params))

    def with_prior(self, weights: Mapping[str, Any]) -> "Base":
        named = {BACKBONE + name: np.asarray(array) for name, array in weights.items()}
        return self._replace(params=self.params | named)

    def write(self, out: str | Path, *, mid_timestep: int, process_size: int) -> None:
        """Writes a converted model."""
        generator = dataclasses.replace(self.generator, mid_timestep=mid_timestep)
        card = converted.ModelCard(generator, process_size, "", color="wavelet")
        converted.write(out, card, self.params)


def base_of(config: PretrainConfig, vae: Mapping[str, Any]) -> Base:
    """A base with this VAE and a random backbone."""
    generator = architectures.named(config.architecture)
    params = jax.device_get(initial(config, OMGSR(generator, rngs=None)))
    return Base(generator, params | {_VAE + name: np.asarray(v) for name, v in vae.items()})
