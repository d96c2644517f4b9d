"""UNet2DCondition: the noise predictor of Stable Diffusion 1.x and 2.x (SD-Turbo, SD2.1-base)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array

from .blocks import Downsample, ResnetBlock, SpatialTransformer, Upsample, require_widths
from .embeddings import TimestepEmbedding, timestep_embedding
from .layers import Conv, GroupNorm, Rngs, remat, require_heads
from .lora import SD_TARGETS

_MOST_LAYERS = 1000


@dataclass(frozen=True)
class UNetConfig:
    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    # Per block from the highest resolution down: does it attend to the prompt?
    attention: tuple[bool, ...] = (True, True, True, False)
    heads: tuple[int, ...] = (5, 10, 20, 20)
    transformer_depth: tuple[int, ...] = (1, 1, 1, 1)
    cross_attention_dim: int = 1024
    linear_projection: bool = True
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0

    # Latents enter one by one.
    patch: ClassVar[int] = 1
    lora_targets: ClassVar[tuple[str, ...]] = SD_TARGETS

    def __post_init__(self) -> None:
        widths = self.block_out_channels
        require_widths(widths, self.norm_num_groups)
        for name in ("attention", "heads", "transformer_depth"):
            if len(getattr(self, name)) != len(widths):
                raise ValueError(f"{name} must have {len(widths)} values, as block_out_channels")
        attends = (*self.attention[:-1], True)  # the middle block does, at the last width
        for width, heads, attend in zip(widths, self.heads, attends, strict=True):
            if attend:
                require_heads(width, heads)
        each = zip(self.attention, self.transformer_depth, strict=True)
        layers = sum(1 + attends * depth for attends, depth in each) * (
            2 * self.layers_per_block + 1
        )
        if layers > _MOST_LAYERS:
            raise ValueError(f"there would be {layers} layers, at most {_MOST_LAYERS} are expected")

    @property
    def downsampling(self) -> int:
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def prompt_widths(self) -> dict[str, tuple[int, int]]:
        """What it is given of a prompt: the axes of each embedding, and the last one's length."""
        return {"context": (2, self.cross_attention_dim)}


class Level(nnx.Module):
    """One resolution of the UNet: residual blocks, each followed by a transformer if it attends.

    `inputs` are the input widths of the residual blocks; all of them put out `width` channels.
    """

    def __init__(self, inputs: list[int], level: int, config: UNetConfig, *, rngs: Rngs):
        width = config.block_out_channels[level]
        self.resnets = nnx.List(_resnet(c_in, width, config, rngs) for c_in in inputs)
        self.attentions = nnx.List(
            _transformer(width, level, config, rngs) for _ in inputs if config.attention[level]
        )

    def layer(self, i: int, x: Array, time: Array, context: Array) -> Array:
        x = self.resnets[i](x, time)
        return self.attentions[i](x, context) if self.attentions else x


class DownBlock(Level):
    def __init__(self, inputs: list[int], level: int, config: UNetConfig, *, rngs: Rngs):
        super().__init__(inputs, level, config, rngs=rngs)
        width, is_last = (
            config.block_out_channels[level],
            level == len(config.block_out_channels) - 1,
        )
        self.downsamplers = nnx.List(
            [] if is_last else [Downsample(width, pad_all_sides=True, rngs=rngs)]
        )

    def __call__(self, x: Array, time: Array, context: Array) -> list[Array]:
        """Every intermediate map: the last one goes on, all of them meet the way up."""
        maps = []
        for i in range(len(self.resnets)):
            x = self.layer(i, x, time, context)
            maps.append(x)
        return maps + [downsample(x) for downsample in self.downsamplers]


class UpBlock(Level):
    def __init__(self, inputs: list[int], level: int, config: UNetConfig, *, rngs: Rngs):
        super().__init__(inputs, level, config, rngs=rngs)
        width = config.block_out_channels[level]
        self.upsamplers = nnx.List([] if level == 0 else [Upsample(width, rngs=rngs)])

    def __call__(
        self,
        x: Array,
        skips: list[Array],
        time: Array,
        context: Array,
        *,
        size: tuple[int, int] | None,
    ) -> Array:
        """`skips` are the maps from the way down, the first to be met first."""
        for i, skip in enumerate(skips):
            x = self.layer(i, jnp.concatenate([x, skip], axis=-1), time, context)
        for upsample in self.upsamplers:
            x = upsample(x, size)
        return x


class MidBlock(nnx.Module):
    def __init__(self, channels: int, config: UNetConfig, *, rngs: Rngs):
        self.resnets = nnx.List(_resnet(channels, channels, config, rngs) for _ in range(2))
        self.attentions = nnx.List([_transformer(channels, -1, config, rngs)])

    def __call__(self, x: Array, time: Array, context: Array) -> Array:
        x = self.attentions[0](self.resnets[0](x, time), context)
        return self.resnets[1](x, time)


class UNet(nnx.Module):
    def __init__(self, config: UNetConfig, *, remat: bool = False, rngs: Rngs):
        widths, depth = config.block_out_channels, config.layers_per_block
        self.conv_in = Conv(config.in_channels, widths[0], 3, padding=1, rngs=rngs)
        self.time_embedding = TimestepEmbedding(widths[0], 4 * widths[0], rngs=rngs)

        # The widths of the maps that the way up will meet, the last one first.
        skips = [widths[0]]
        self.down_blocks: nnx.List[DownBlock] = nnx.List([])
        for level, width in enumerate(widths):
            inputs = [skips[-1]] + [width] * (depth - 1)
            self.down_blocks.append(DownBlock(inputs, level, config, rngs=rngs))
            skips += [width] * (depth + (level < len(widths) - 1))

        self.mid_block = MidBlock(widths[-1], config, rngs=rngs)

        self.up_blocks: nnx.List[UpBlock] = nnx.List([])
        below = widths[-1]
        for level, width in reversed(list(enumerate(widths))):
            inputs = [(width if i else below) + skips.pop() for i in range(depth + 1)]
            self.up_blocks.append(UpBlock(inputs, level, config, rngs=rngs))
            below = width

        self.conv_norm_out = GroupNorm(
            widths[0], groups=config.norm_num_groups, eps=config.norm_eps
        )
        self.conv_out = Conv(widths[0], config.out_channels, 3, padding=1, rngs=rngs)
        self.config = config
        self.remat = remat

    def __call__(self, z: Array, t: Array | float, context: Array) -> Array:
        """The noise in latents `z` (b h w c) at timestep `t` (scalar or b) for a prompt (b n c)."""
        time = self._time(z, t)
        skips, x = self._way_down(z, time, context)
        for up in self.up_blocks:
            here = [skips.pop() for _ in up.resnets]
            size = skips[-1].shape[1:3] if skips else None
            x = self._run(up, x, here, time, context, size=size)
        return self.conv_out(self.conv_norm_out(x, silu=True))

    def features(self, z: Array, t: Array | float, context: Array) -> list[Array]:
        """Each level's last map on the way down (b h w c, b h/2 w/2 c, ...), then the middle's."""
        skips, middle = self._way_down(z, self._time(z, t), context)
        depth = self.config.layers_per_block
        return [*skips[depth :: depth + 1], middle]

    def _time(self, z: Array, t: Array | float) -> Array:
        config = self.config
        t = jnp.broadcast_to(jnp.asarray(t, jnp.float32), z.shape[:1])
        return self.time_embedding(
            timestep_embedding(
                t,
                config.block_out_channels[0],
                flip_sin_to_cos=config.flip_sin_to_cos,
                freq_shift=config.freq_shift,
            )
        )

    def _way_down(self, z: Array, time: Array, context: Array) -> tuple[list[Array], Array]:
        """The maps that the way up will meet, and the middle's."""
        skips = [self.conv_in(z)]
        for block in self.down_blocks:
            skips += self._run(block, skips[-1], time, context)
        return skips, self._run(self.mid_block, skips[-1], time, context)

    def _run(self, block: Any, *args: Any, **static: Any) -> Any:
        return remat(block, *args, **static) if self.remat else block(*args, **static)


def _resnet(c_in: int, c_out: int, config: UNetConfig, rngs: Rngs) -> ResnetBlock:
    return ResnetBlock(
        c_in,
        c_out,
        groups=config.norm_num_groups,
        eps=config.norm_eps,
        c_time=4 * config.block_out_channels[0],
        rngs=rngs,
    )


def _transformer(channels: int, level: int, config: UNetConfig, rngs: Rngs) -> SpatialTransformer:
    return SpatialTransformer(
        channels,
        heads=config.heads[level],
        c_context=config.cross_attention_dim,
        depth=config.transformer_depth[level],
        groups=config.norm_num_groups,
        linear_projection=config.linear_projection,
        rngs=rngs,
    )
