"""What the UNet and the VAE are both built from: residual blocks, attention, resampling."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from .layers import Conv, GroupNorm, Identity, LayerNorm, Linear, Rngs
from .ops.attention import attention
from .ops.convolution import doubled

_MOST_LEVELS = 8


def require_widths(widths: tuple[int, ...], groups: int) -> None:
    """A network's width at each of its resolutions: a few, all of which can be normalised."""
    if not 1 <= len(widths) <= _MOST_LEVELS:
        raise ValueError(
            f"block_out_channels must have 1 to {_MOST_LEVELS} values, not {len(widths)}"
        )
    for width in widths:
        if width % groups:
            raise ValueError(f"{width} channels cannot be normalised in {groups} groups")


class ResnetBlock(nnx.Module):
    """Two normalised convolutions around a shortcut, the timestep embedding added in between."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        groups: int,
        eps: float,
        c_time: int | None = None,
        rngs: Rngs,
    ):
        self.norm1 = GroupNorm(c_in, groups=groups, eps=eps)
        self.conv1 = Conv(c_in, c_out, 3, padding=1, rngs=rngs)
        self.time_emb_proj = Linear(c_time, c_out, rngs=rngs) if c_time else None
        self.norm2 = GroupNorm(c_out, groups=groups, eps=eps)
        self.conv2 = Conv(c_out, c_out, 3, padding=1, rngs=rngs)
        self.conv_shortcut = Conv(c_in, c_out, 1, rngs=rngs) if c_in != c_out else None

    def __call__(self, x: Array, time: Array | None = None) -> Array:  # b h w c_in -> b h w c_out
        h = self.conv1(self.norm1(x, silu=True))
        if self.time_emb_proj is not None and time is not None:
            h = h + self.time_emb_proj(jax.nn.silu(time))[:, None, None, :]
        h = self.conv2(self.norm2(h, silu=True))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class AttentionLayers(nnx.Module):
    """The projections around multi-head attention."""

    def __init__(self, channels: int, *, heads: int, c_context: int, qkv_bias: bool, rngs: Rngs):
        self.to_q = Linear(channels, channels, bias=qkv_bias, rngs=rngs)
        self.to_k = Linear(c_context, channels, bias=qkv_bias, rngs=rngs)
        self.to_v = Linear(c_context, channels, bias=qkv_bias, rngs=rngs)
        self.to_out = nnx.List([Linear(channels, channels, rngs=rngs)])
        self.heads = heads

    def attend(self, x: Array, context: Array, unseen: Array | None = None) -> Array:
        """b n c and b m c to b n c. `unseen` (b m) says what is passed over."""

        def split(y: Array) -> Array:  # b n (k d) -> b n k d
            return y.reshape(*y.shape[:-1], self.heads, -1)

        q, k, v = split(self.to_q(x)), split(self.to_k(context)), split(self.to_v(context))
        y = attention(q, k, v, unseen=unseen)
        return self.to_out[0](y.reshape(x.shape))


class Attention(AttentionLayers):
    """Attention of `x` to `context`, or to itself."""

    def __init__(self, channels: int, *, heads: int, c_context: int | None = None, rngs: Rngs):
        super().__init__(
            channels, heads=heads, c_context=c_context or channels, qkv_bias=False, rngs=rngs
        )

    def __call__(self, x: Array, context: Array | None = None) -> Array:  # b n c
        return self.attend(x, x if context is None else context)


class SpatialAttention(AttentionLayers):
    """The VAE's single-head self-attention over all pixels, with its norm and residual."""

    def __init__(self, channels: int, *, groups: int, eps: float, rngs: Rngs):
        super().__init__(channels, heads=1, c_context=channels, qkv_bias=True, rngs=rngs)
        self.group_norm = GroupNorm(channels, groups=groups, eps=eps)

    def __call__(self, x: Array) -> Array:  # b h w c
        b, h, w, c = x.shape
        tokens = self.group_norm(x).reshape(b, h * w, c)
        return x + self.attend(tokens, tokens).reshape(b, h, w, c)


class GEGLU(nnx.Module):
    def __init__(self, c_in: int, c_out: int, *, rngs: Rngs):
        self.proj = Linear(c_in, 2 * c_out, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        value, gate = jnp.split(self.proj(x), 2, axis=-1)
        return value * jax.nn.gelu(gate, approximate=False)


class FeedForward(nnx.Module):
    def __init__(self, channels: int, *, rngs: Rngs):
        self.net = nnx.List(
            [
                GEGLU(channels, 4 * channels, rngs=rngs),
                Identity(),
                Linear(4 * channels, channels, rngs=rngs),
            ]
        )

    def __call__(self, x: Array) -> Array:  # b n c
        for layer in self.net:
            x = layer(x)
        return x


class BasicTransformerBlock(nnx.Module):
    """Self-attention, attention to the prompt, feed-forward."""

    def __init__(self, channels: int, *, heads: int, c_context: int, rngs: Rngs):
        self.norm1 = LayerNorm(channels)
        self.attn1 = Attention(channels, heads=heads, rngs=rngs)
        self.norm2 = LayerNorm(channels)
        self.attn2 = Attention(channels, heads=heads, c_context=c_context, rngs=rngs)
        self.norm3 = LayerNorm(channels)
        self.ff = FeedForward(channels, rngs=rngs)

    def __call__(self, x: Array, context: Array) -> Array:  # b n c
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nnx.Module):
    """Transformer blocks over the pixels of a feature map, between two projections."""

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        c_context: int,
        depth: int,
        groups: int,
        linear_projection: bool,
        rngs: Rngs,
    ):
        def projection() -> nnx.Module:
            if linear_projection:
                return Linear(channels, channels, rngs=rngs)
            return Conv(channels, channels, 1, rngs=rngs)

        self.norm = GroupNorm(channels, groups=groups, eps=1e-6)
        self.proj_in = projection()
        self.transformer_blocks = nnx.List(
            BasicTransformerBlock(channels, heads=heads, c_context=c_context, rngs=rngs)
            for _ in range(depth)
        )
        self.proj_out = projection()

    def __call__(self, x: Array, context: Array) -> Array:  # b h w c
        b, h, w, c = x.shape
        y = self.proj_in(self.norm(x)).reshape(b, h * w, c)
        for block in self.transformer_blocks:
            y = block(y, context)
        return x + self.proj_out(y.reshape(b, h, w, c))


class Downsample(nnx.Module):
    """Halves height and width. The UNet pads all sides by 1; the VAE pads only bottom and right."""

    def __init__(self, channels: int, *, pad_all_sides: bool, rngs: Rngs):
        padding = 1 if pad_all_sides else ((0, 1), (0, 1))
        self.conv = Conv(channels, channels, 3, stride=2, padding=padding, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.conv(x)


class Upsample(nnx.Module):
    """Doubles height and width by repetition, then convolves."""

    def __init__(self, channels: int, *, rngs: Rngs):
        self.conv = Conv(channels, channels, 3, padding=1, rngs=rngs)

    def __call__(self, x: Array, size: tuple[int, int] | None = None) -> Array:
        """`size` is 2h x 2w, or one less where the map to be met has an odd side."""
        _, h, w, _ = x.shape
        if size in (None, (2 * h, 2 * w)):
            return self.conv.of_doubled(x)
        return self.conv(doubled(x)[:, : size[0], : size[1]])
