"""OMGSR itself (Fig. 5 of the paper): encode, predict once at the mid-timestep, decode.

OMGSR-S and OMGSR-F are this one class over different parts: a VAE, a backbone, a noise process.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from .models import lora
from .models.flux import Flux, FluxConfig
from .models.layers import Rngs, zeros
from .models.lora import LoRASpec
from .models.pixel_vae import PixelVAE, PixelVAEConfig
from .models.timestep_head import TimestepHead, TimestepHeadConfig
from .models.unet import UNet, UNetConfig
from .models.vae import VAE, VAEConfig
from .models.z_image import ZImage, ZImageConfig
from .process import DDPM, FlowMatching, Residual, ScaledDDPM, log_noise, timestep_of

AnyVAE = VAE | PixelVAE
AnyVAEConfig = VAEConfig | PixelVAEConfig
BackboneConfig = UNetConfig | FluxConfig | ZImageConfig
_BACKBONES: dict[type, Callable[..., Any]] = {
    UNetConfig: UNet,
    FluxConfig: Flux,
    ZImageConfig: ZImage,
}
_VAES: dict[type, Callable[..., AnyVAE]] = {VAEConfig: VAE, PixelVAEConfig: PixelVAE}


def make_vae(config: AnyVAEConfig, *, remat: bool = False, rngs: Rngs) -> AnyVAE:
    """The VAE that a config describes."""
    return _VAES[type(config)](config, remat=remat, rngs=rngs)


@dataclass(frozen=True)
class OMGSRConfig:
    """What an OMGSR generator is made of."""

    vae: AnyVAEConfig
    backbone: BackboneConfig
    process: DDPM | ScaledDDPM | Residual | FlowMatching
    mid_timestep: int
    # The prompt's embeddings by the backbone's keyword, and their shapes without the batch axis.
    prompt_shapes: Mapping[str, tuple[int, ...]]
    encoder_lora: LoRASpec | None = None
    backbone_lora: LoRASpec | None = None
    # Predicts a mid-timestep for each image. `mid_timestep` is then where its training began.
    adaptive: TimestepHeadConfig | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.mid_timestep < self.process.timesteps:
            raise ValueError(
                f"the mid-timestep must be within 0 .. {self.process.timesteps - 1}, "
                f"not {self.mid_timestep}"
            )
        self._require_matching_channels()
        self._require_matching_prompt()

    def _require_matching_channels(self) -> None:
        latents = self.vae.latent_channels * self.backbone.patch**2
        for name in ("in_channels", "out_channels"):
            found = getattr(self.backbone, name)
            if found != latents:
                raise ValueError(
                    f"the backbone's {name} must be {latents} for a VAE of "
                    f"{self.vae.latent_channels} latent channels, not {found}"
                )

    def _require_matching_prompt(self) -> None:
        widths = self.backbone.prompt_widths
        if self.prompt_shapes.keys() != widths.keys():
            raise ValueError(
                f"the prompt must have embeddings called {', '.join(widths)}, "
                f"not {', '.join(self.prompt_shapes) or 'none'}"
            )
        for name, (axes, width) in widths.items():
            shape = self.prompt_shapes[name]
            if len(shape) != axes or shape[-1] != width:
                raise ValueError(
                    f"the prompt's {name} must have {axes} axes, the last of {width}, "
                    f"not the shape {shape}"
                )

    @property
    def multiple(self) -> int:
        """What the sides of images must be multiples of."""
        return self.vae.downsampling * self.backbone.patch

    @property
    def without_adapters(self) -> "OMGSRConfig":
        """The pre-trained networks."""
        return replace(self, encoder_lora=None, backbone_lora=None, adaptive=None)


def _timestep_head(config: OMGSRConfig, rngs: Rngs) -> TimestepHead:
    assert config.adaptive is not None
    with jax.ensure_compile_time_eval():
        start = float(log_noise(config.process, config.mid_timestep))
    return TimestepHead(config.adaptive, config.vae.latent_channels, start=start, rngs=rngs)


class Prompt(nnx.Variable):
    """Embeddings of the one prompt that a model was trained with."""


class OMGSR(nnx.Module):
    """One-step restoration of low-quality images that are already enlarged to their final size."""

    def __init__(self, config: OMGSRConfig, *, remat: bool = False, rngs: Rngs):
        self.vae = make_vae(config.vae, remat=remat, rngs=rngs)
        self.backbone = _BACKBONES[type(config.backbone)](config.backbone, remat=remat, rngs=rngs)
        self.prompt = nnx.Dict(
            {name: Prompt(zeros(rngs, *shape)) for name, shape in config.prompt_shapes.items()}
        )
        if config.encoder_lora:
            lora.inject(self.vae.encoder, config.encoder_lora, rngs=rngs)
        if config.backbone_lora:
            lora.inject(self.backbone, config.backbone_lora, rngs=rngs)
        self.process = config.process
        self.t_m = config.mid_timestep
        self.timestep_factor = 1.0  # see `with_fidelity`
        self.timestep_head = _timestep_head(config, rngs) if config.adaptive else None
        self.multiple, self.patch = config.multiple, config.backbone.patch

    def encode(self, x_l: Array, key: Array | None = None) -> Array:
        """Images (b h w 3, in [-1, 1]) to scaled latents z_L (b h/8 w/8 c), fp32.

        The posterior's mode is taken, or a sample of it where a random key is given.
        """
        return self.vae.latents(x_l, key)

    def mid_timestep(self, z_l: Array) -> int | Array:
        """Where z_L enters: at t_m, or where the model is adaptive, each image at its own (b)."""
        if self.timestep_head is None:
            return self._moved(self.t_m)
        return self._moved(timestep_of(self.process, self.timestep_head(z_l)))

    def _moved(self, t: int | Array) -> int | Array:
        if self.timestep_factor == 1:
            return t
        last = self.process.timesteps - 1
        return jnp.clip(jnp.round(t * self.timestep_factor), 0, last).astype(jnp.int32)

    def predict(self, z_t: Array, t: ArrayLike | None = None) -> Array:
        """The network's prediction for a noisy latent at `t` (b), by default the t_m of all."""
        time = self.process.conditioning(self.t_m if t is None else t)
        return self.backbone(z_t, time, **self._prompts(z_t.shape[0]))

    def features(self, z: Array) -> list[Array]:
        """What the backbone makes of clean latents inside, for a discriminator to look through.

        They come without noise, at the first timestep: noise would cover a faint lattice.
        """
        time = self.process.conditioning(0)
        return self.backbone.features(z, time, **self._prompts(z.shape[0]))

    def _prompts(self, b: int) -> dict[str, Array]:
        return {
            name: jnp.broadcast_to(embedding[...], (b, *embedding.shape))
            for name, embedding in self.prompt.items()
        }

    def one_step(self, z_l: Array, t: ArrayLike | None = None) -> Array:
        """z_P, the clean latent that the prediction leads to (Eq. 12 and 13).

        z_L enters at `t` (b), by default the mid-timestep.
        """
        t = self.mid_timestep(z_l) if t is None else t
        z_t = self.process.injected(z_l, t)
        return self.process.clean(z_t, self.predict(z_t, t), t)

    def decode(self, z_p: Array) -> Array:
        """Latents to images in [-1, 1], fp32."""
        return jnp.clip(self.decode_unclipped(self.vae.unscale(z_p)), -1, 1)

    def decode_unclipped(self, z: Array) -> Array:
        """Unscaled latents to images around [-1, 1], fp32."""
        return self.vae.decode(z).astype(jnp.float32)

    def __call__(self, x_l: Array, key: Array | None = None) -> Array:
        return self.decode(self.one_step(self.encode(x_l, key)))
