"""Networks read from real folders by the real converter, for comparison with PyTorch."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from conversion import configs, flux_configs, z_image_configs
from conversion.keymap import CLIP_TEXT, DIFFUSERS, QWEN3, T5, VAE, Spelling, convert_state
from conversion.parity.arrays import relative_error
from conversion.tensor_files import open_tensors
from omgsr_jax.descriptions import read_json
from omgsr_jax.models import clip_text, flux, qwen3, t5, unet, vae, z_image
from omgsr_jax.weights import fill, variables

__all__ = ["assert_blocks_agree", "drawn", "images", "read_network", "relative_error", "run_readme"]

_READERS: dict[str, tuple[Any, Any, Spelling, str]] = {
    "unet": (unet.UNet, configs.unet_config, DIFFUSERS, "diffusion_pytorch_model"),
    "vae": (vae.VAE, configs.vae_config, VAE, "diffusion_pytorch_model"),
    "flux": (flux.Flux, flux_configs.flux_config, DIFFUSERS, "diffusion_pytorch_model"),
    "z_image": (
        z_image.ZImage,
        z_image_configs.z_image_config,
        DIFFUSERS,
        "diffusion_pytorch_model",
    ),
    "qwen3": (qwen3.Qwen3Encoder, z_image_configs.qwen3_config, QWEN3, "model"),
    "t5": (t5.T5Encoder, flux_configs.t5_config, T5, "model"),
    "text": (clip_text.CLIPTextEncoder, configs.clip_text_config, CLIP_TEXT, "model"),
}


def read_network(kind: str, folder: Path, **how: Any) -> nnx.Module:
    """The network in a folder that diffusers or transformers saved."""
    network, read_config, spelling, stem = _READERS[kind]
    config = read_config(read_json(folder / "config.json"), str(folder))
    model = network(config, **how, rngs=None)
    params = convert_state(
        open_tensors(folder, stem), nnx.state(model), spelling=spelling, headline=str(folder)
    )
    return fill(model, params)


def drawn(network: nnx.Module, seed: int = 0) -> Any:
    """A network built with `rngs=None`, with random weights that keep values near 1 in size.

    NumPy draws them: JAX would compile a program for every shape.
    """
    rng = np.random.default_rng(seed)

    def values(shape: tuple[int, ...]) -> jax.Array:
        noise = rng.standard_normal(shape, np.float32)
        about_one = 1 + 0.1 * noise
        return jnp.asarray(about_one if len(shape) < 2 else noise / np.sqrt(np.prod(shape[:-1])))

    return fill(network, {name: values(leaf.shape) for name, leaf in variables(network).items()})


def assert_blocks_agree(errors: list, *, tolerance: float, at_least: int) -> None:
    """Every block is within `tolerance`; the message names the first one that is not."""
    assert len(errors) >= at_least, f"only {len(errors)} blocks were compared"
    wrong = [block for block in errors if not block.error <= tolerance]
    assert not wrong, f"the first of {len(wrong)} divergent blocks is {wrong[0]}"


def images(seed: int, *shape: int) -> np.ndarray:
    """Random images in [-1, 1], smooth enough to look like ones: b h w 3."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-1, 1, shape).astype(np.float32)
    return (noise + np.roll(noise, 1, 1) + np.roll(noise, 1, 2)) / 3


def run_readme(folder: Path) -> Any:
    """The pipeline of diffusers that an export's README makes, run in its folder."""
    (program,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(program, scope)
    return scope["pipe"]
