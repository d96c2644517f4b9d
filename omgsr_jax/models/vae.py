"""AutoencoderKL: images to latents and back (Stable Diffusion's 4 channels, FLUX's 16)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from .blocks import Downsample, ResnetBlock, SpatialAttention, Upsample, require_widths
from .layers import Conv, GroupNorm, Rngs, remat
from .sampling import sampled_normal

_EPS = 1e-6


@dataclass(frozen=True)
class VAEConfig:
    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float = 0.0
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        require_widths(self.block_out_channels, self.norm_num_groups)

    @property
    def downsampling(self) -> int:
        """How many image pixels stand behind one latent pixel, per side."""
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def features(self) -> int:
        """The channels of the maps between the parts at the image's and the latents' resolution."""
        return self.block_out_channels[-1]

    @property
    def channels_per_pixel(self) -> int:
        """The channels that meet at the image's resolution, where most memory is needed."""
        widths = self.block_out_channels
        return widths[0] + widths[min(1, len(widths) - 1)]


class Posterior(NamedTuple):
    """The encoder's Gaussian over latents, not yet scaled."""

    mean: Array  # b h w c
    logvar: Array  # b h w c

    def mode(self) -> Array:
        return self.mean

    def sample(self, key: Array) -> Array:
        """Sampled with one key for all examples, or with one for each (b)."""
        noise = sampled_normal(key, self.mean.shape)
        return self.mean + jnp.exp(0.5 * self.logvar) * noise


class MidBlock(nnx.Module):
    def __init__(self, channels: int, config: VAEConfig, *, rngs: Rngs):
        groups = config.norm_num_groups
        self.resnets = nnx.List(
            ResnetBlock(channels, channels, groups=groups, eps=_EPS, rngs=rngs) for _ in range(2)
        )
        self.attentions = nnx.List(
            [SpatialAttention(channels, groups=groups, eps=_EPS, rngs=rngs)]
            if config.mid_block_add_attention
            else []
        )

    def __call__(self, x: Array) -> Array:
        x = self.resnets[0](x)
        for attend in self.attentions:
            x = attend(x)
        return self.resnets[1](x)


class DownBlock(nnx.Module):
    def __init__(self, c_in: int, c_out: int, last: bool, config: VAEConfig, *, rngs: Rngs):
        groups = config.norm_num_groups
        self.resnets = nnx.List(
            ResnetBlock(c_in if i == 0 else c_out, c_out, groups=groups, eps=_EPS, rngs=rngs)
            for i in range(config.layers_per_block)
        )
        self.downsamplers = nnx.List(
            [] if last else [Downsample(c_out, pad_all_sides=False, rngs=rngs)]
        )

    def __call__(self, x: Array) -> Array:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class UpBlock(nnx.Module):
    def __init__(self, c_in: int, c_out: int, last: bool, config: VAEConfig, *, rngs: Rngs):
        groups = config.norm_num_groups
        self.resnets = nnx.List(
            ResnetBlock(c_in if i == 0 else c_out, c_out, groups=groups, eps=_EPS, rngs=rngs)
            for i in range(config.layers_per_block + 1)
        )
        self.upsamplers = nnx.List([] if last else [Upsample(c_out, rngs=rngs)])

    def __call__(self, x: Array) -> Array:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class Encoder(nnx.Module):
    def __init__(self, config: VAEConfig, *, remat: bool = False, rngs: Rngs):
        widths = config.block_out_channels
        self.conv_in = Conv(config.in_channels, widths[0], 3, padding=1, rngs=rngs)
        self.down_blocks = nnx.List(
            DownBlock(widths[max(i - 1, 0)], width, i == len(widths) - 1, config, rngs=rngs)
            for i, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], config, rngs=rngs)
        self.conv_norm_out = GroupNorm(widths[-1], groups=config.norm_num_groups, eps=_EPS)
        self.conv_out = Conv(widths[-1], 2 * config.latent_channels, 3, padding=1, rngs=rngs)
        self.remat = remat

    def __call__(self, x: Array) -> Array:  # b h w 3 -> b h/8 w/8 2c
        x = self.features(x)[-1]
        return self.conv_out(self.conv_norm_out(x, silu=True))

    def features(self, x: Array) -> list[Array]:
        """The output of every block on the way (b h/2 w/2 c, ..., b h/8 w/8 c)."""
        x = self.conv_in(x)
        maps = []
        for block in (*self.down_blocks, self.mid_block):
            x = remat(block, x) if self.remat else block(x)
            maps.append(x)
        return maps


class Decoder(nnx.Module):
    def __init__(self, config: VAEConfig, *, remat: bool = False, rngs: Rngs):
        widths = config.block_out_channels[::-1]
        self.conv_in = Conv(config.latent_channels, widths[0], 3, padding=1, rngs=rngs)
        self.mid_block = MidBlock(widths[0], config, rngs=rngs)
        self.up_blocks = nnx.List(
            UpBlock(widths[max(i - 1, 0)], width, i == len(widths) - 1, config, rngs=rngs)
            for i, width in enumerate(widths)
        )
        self.conv_norm_out = GroupNorm(widths[-1], groups=config.norm_num_groups, eps=_EPS)
        self.conv_out = Conv(widths[-1], config.out_channels, 3, padding=1, rngs=rngs)
        self.remat = remat

    def __call__(self, z: Array) -> Array:  # b h/8 w/8 c -> b h w 3
        x = self.conv_in(z)
        for block in (self.mid_block, *self.up_blocks):
            x = remat(block, x) if self.remat else block(x)
        return self.conv_out(self.conv_norm_out(x, silu=True))


class VAE(nnx.Module):
    def __init__(self, config: VAEConfig, *, remat: bool = False, rngs: Rngs):
        latent = config.latent_channels
        self.encoder = Encoder(config, remat=remat, rngs=rngs)
        self.quant_conv = (
            Conv(2 * latent, 2 * latent, 1, rngs=rngs) if config.use_quant_conv else None
        )
        self.post_quant_conv = (
            Conv(latent, latent, 1, rngs=rngs) if config.use_post_quant_conv else None
        )
        self.decoder = Decoder(config, remat=remat, rngs=rngs)
        self.config = config

    def encode(self, x: Array) -> Posterior:
        """Images in [-1, 1] to the posterior over unscaled latents."""
        return self.posterior(self.encoder(x))

    def posterior(self, moments: Array) -> Posterior:  # b h w 2c
        """Of what the encoder gives."""
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, logvar = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return Posterior(mean, jnp.clip(logvar, -30.0, 20.0))

    def latents(self, x: Array, key: Array | None = None) -> Array:
        """Images in [-1, 1] to scaled latents, fp32.

        The posterior's mode is taken, or a sample of it where there is a key: one for all images,
        or one for each.
        """
        posterior = self.encode(x)
        return self.scale(posterior.mode() if key is None else posterior.sample(key))

    def decode(self, z: Array) -> Array:
        """Unscaled latents to images around [-1, 1]."""
        return self.decoder(self.decoded_from(z))

    def decoded_from(self, z: Array) -> Array:
        """What the decoder is given for unscaled latents."""
        return z if self.post_quant_conv is None else self.post_quant_conv(z)

    def scale(self, z: Array) -> Array:
        """Latents as the VAE gives them, to latents as the diffusion model knows them."""
        return (z - self.config.shift_factor) * self.config.scaling_factor

    def unscale(self, z: Array) -> Array:
        return z / self.config.scaling_factor + self.config.shift_factor
