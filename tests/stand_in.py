"""A small model with random weights in the place of nano, and of nano's kind."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from omgsr_jax import converted
from omgsr_jax.generator import OMGSR, OMGSRConfig
from omgsr_jax.models.lora import LoRASpec
from omgsr_jax.models.unet import UNetConfig
from omgsr_jax.models.vae import VAEConfig
from omgsr_jax.process import DDPM
from omgsr_jax.weights import variables

_VAE = VAEConfig(
    block_out_channels=(8, 8, 16),  # 4 pixels behind a latent one
    layers_per_block=1,
    norm_num_groups=4,
    mid_block_add_attention=False,
)
_UNET = UNetConfig(
    block_out_channels=(16, 16, 32),
    layers_per_block=1,
    attention=(False, False, True),
    heads=(1, 1, 2),
    transformer_depth=(1, 1, 1),
    cross_attention_dim=8,
    norm_num_groups=4,
)


def write_stand_in(
    directory: Path,
    *,
    process_size: int = 256,
    mid_timestep: int = 300,
    adapters: LoRASpec | None = None,
    parts: OMGSRConfig | None = None,
    seed: int = 0,
) -> Path:
    """`adapters` are those of the encoder and of the backbone; `parts` are others than nano has."""
    parts = parts or OMGSRConfig(_VAE, _UNET, DDPM(), mid_timestep, {"context": (1, 8)})
    config = replace(
        parts, mid_timestep=mid_timestep, encoder_lora=adapters, backbone_lora=adapters
    )
    shapes = variables(OMGSR(config, rngs=None))
    rng = np.random.default_rng(seed)
    arrays = {name: _random(name, leaf.get_value().shape, rng) for name, leaf in shapes.items()}
    converted.write(directory, converted.ModelCard(config, process_size, "none"), arrays)
    return directory


def _random(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if name.endswith("scale"):
        return np.ones(shape, np.float32)
    deviation = 1 / np.sqrt(np.prod(shape[:-1])) if name.endswith("kernel") else 0.1
    return (deviation * rng.standard_normal(shape)).astype(np.float32)
