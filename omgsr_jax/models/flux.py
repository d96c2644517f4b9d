"""The FLUX.1 transformer: latents and a prompt as one sequence of tokens.

double-stream blocks   image and text have weights of their own and attend to each other
single-stream blocks   one sequence, attention and feed-forward side by side
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from .embeddings import TimestepEmbedding, timestep_embedding
from .layers import ACTIVATIONS, Identity, Linear, RMSNorm, Rngs, standardised
from .lora import FLUX_TARGETS
from .ops.attention import attention
from .ops.rows import joined, parted
from .rotary import rotate
from .stack import Sequence, Stack

_EPS = 1e-6
_SINUSOIDS = 256
_THETA = 10000
_MLP_RATIO = 4
_TIME_SCALE = 1000.0  # the network wants times and guidance in thousandths
_gelu = ACTIVATIONS["gelu_pytorch_tanh"]


@dataclass(frozen=True)
class FluxConfig:
    """FLUX.1-dev."""

    in_channels: int = 64  # of a token: 2 x 2 latents of 16 channels
    num_layers: int = 19
    num_single_layers: int = 38
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 4096
    pooled_projection_dim: int = 768
    guidance_embeds: bool = True
    axes_dims_rope: tuple[int, ...] = (16, 56, 56)

    # Latents enter in squares of this side.
    patch: ClassVar[int] = 2
    lora_targets: ClassVar[tuple[str, ...]] = FLUX_TARGETS

    def __post_init__(self) -> None:
        axes = self.axes_dims_rope
        if len(axes) != 3 or sum(axes) != self.attention_head_dim or any(d % 2 for d in axes):
            raise ValueError(
                f"axes_dims_rope {axes} must be three even numbers that add up to "
                f"attention_head_dim, {self.attention_head_dim}"
            )

    @property
    def out_channels(self) -> int:
        return self.in_channels

    @property
    def width(self) -> int:
        return self.attention_head_dim * self.num_attention_heads

    @property
    def prompt_widths(self) -> dict[str, tuple[int, int]]:
        """What it is given of a prompt: the axes of each embedding, and the last one's length."""
        return {"context": (2, self.joint_attention_dim), "pooled": (1, self.pooled_projection_dim)}


# Tokens.


def pack(z: Array) -> Array:
    """Latents in squares of 2 x 2: b h w c -> b (h/2 w/2) 4c."""
    b, h, w, c = z.shape
    squares = z.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4)
    return squares.reshape(b, h * w // 4, 4 * c)


def unpack(tokens: Array, size: tuple[int, int]) -> Array:
    """The inverse of `pack`, for latents of height and width `size`."""
    (b, _, c), (h, w) = tokens.shape, size
    squares = tokens.reshape(b, h // 2, w // 2, c // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return squares.reshape(b, h, w, c // 4)


def positions(text: int, size: tuple[int, int]) -> Array:
    """Where tokens are, n 3: zeros for text, (0, row, column) for latents of `size`."""
    rows, columns = jnp.indices((size[0] // 2, size[1] // 2))
    image = jnp.stack([jnp.zeros_like(rows), rows, columns], -1).reshape(-1, 3)
    return jnp.concatenate([jnp.zeros((text, 3), image.dtype), image])


def rotation(positions: Array, axes: tuple[int, ...]) -> Array:
    """Cosine and sine of the angle by which each pair of channels turns: 2 n d/2, fp32."""
    angles = [
        positions[:, i, None] * jnp.asarray(_THETA ** (-np.arange(0, d, 2) / d), jnp.float32)
        for i, d in enumerate(axes)
    ]
    turned = jnp.concatenate(angles, axis=-1)
    return jnp.stack([jnp.cos(turned), jnp.sin(turned)])


# Conditioning.


class Conditioning(nnx.Module):
    """Time, guidance and the prompt as a whole, in one vector."""

    def __init__(self, config: FluxConfig, *, rngs: Rngs):
        width = config.width
        self.timestep_embedder = TimestepEmbedding(_SINUSOIDS, width, rngs=rngs)
        self.guidance_embedder = (
            TimestepEmbedding(_SINUSOIDS, width, rngs=rngs) if config.guidance_embeds else None
        )
        self.text_embedder = TimestepEmbedding(config.pooled_projection_dim, width, rngs=rngs)

    def __call__(self, t: Array, guidance: Array, pooled: Array) -> Array:  # b, b, b c -> b c
        time = self.timestep_embedder(timestep_embedding(_TIME_SCALE * t, _SINUSOIDS))
        if self.guidance_embedder is not None:
            sinusoids = timestep_embedding(_TIME_SCALE * guidance, _SINUSOIDS)
            time = time + self.guidance_embedder(sinusoids)
        return time + self.text_embedder(pooled)


class Modulation(nnx.Module):
    """`count` vectors per example that shift, scale and gate what a block computes."""

    def __init__(self, width: int, count: int, *, rngs: Rngs):
        self.linear = Linear(width, count * width, rngs=rngs)
        self.count = count

    def __call__(self, conditioning: Array) -> list[Array]:  # b c -> count x b 1 c
        vectors = self.linear(jax.nn.silu(conditioning))[:, None, :]
        return jnp.split(vectors, self.count, axis=-1)


def modulated(x: Array, shift: Array, scale: Array) -> Array:
    return (standardised(x, _EPS) * (1 + scale) + shift).astype(x.dtype)


# Blocks.


class SelfAttention(nnx.Module):
    """Projections to turned and normed queries and keys, and to values."""

    def __init__(self, config: FluxConfig, *, rngs: Rngs):
        width = config.width
        self.norm_q = RMSNorm(config.attention_head_dim, eps=_EPS)
        self.norm_k = RMSNorm(config.attention_head_dim, eps=_EPS)
        self.to_q = Linear(width, width, rngs=rngs)
        self.to_k = Linear(width, width, rngs=rngs)
        self.to_v = Linear(width, width, rngs=rngs)
        self.heads = config.num_attention_heads

    def split(self, y: Array) -> Array:  # b n (k d) -> b n k d
        return y.reshape(*y.shape[:-1], self.heads, -1)

    def qkv(self, x: Array) -> tuple[Array, Array, Array]:
        q, k, v = (self.split(project(x)) for project in (self.to_q, self.to_k, self.to_v))
        return self.norm_q(q), self.norm_k(k), v

    def __call__(self, x: Array, turn: Array) -> Array:  # b n c
        q, k, v = self.qkv(x)
        return attention(rotate(q, turn), rotate(k, turn), v).reshape(x.shape)


class JointAttention(SelfAttention):
    """Attention of two sequences, each with its own projections, to both of them."""

    def __init__(self, config: FluxConfig, *, rngs: Rngs):
        super().__init__(config, rngs=rngs)
        width = config.width
        self.norm_added_q = RMSNorm(config.attention_head_dim, eps=_EPS)
        self.norm_added_k = RMSNorm(config.attention_head_dim, eps=_EPS)
        self.add_q_proj = Linear(width, width, rngs=rngs)
        self.add_k_proj = Linear(width, width, rngs=rngs)
        self.add_v_proj = Linear(width, width, rngs=rngs)
        self.to_out = nnx.List([Linear(width, width, rngs=rngs)])
        self.to_add_out = Linear(width, width, rngs=rngs)

    def added_qkv(self, x: Array) -> tuple[Array, Array, Array]:
        projections = (self.add_q_proj, self.add_k_proj, self.add_v_proj)
        q, k, v = (self.split(project(x)) for project in projections)
        return self.norm_added_q(q), self.norm_added_k(k), v

    def both(self, image: Array, text: Array, turn: Array) -> tuple[Array, Array]:
        q, k, v = map(joined, self.added_qkv(text), self.qkv(image))  # text comes first: b m+n k d
        y = attention(rotate(q, turn), rotate(k, turn), v)
        of_text, of_image = parted(y.reshape(*y.shape[:2], -1), text.shape[1])
        return self.to_out[0](of_image), self.to_add_out(of_text)


class GELU(nnx.Module):
    def __init__(self, c_in: int, c_out: int, *, rngs: Rngs):
        self.proj = Linear(c_in, c_out, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return _gelu(self.proj(x))


class FeedForward(nnx.Module):
    def __init__(self, width: int, *, rngs: Rngs):
        wide = _MLP_RATIO * width
        self.net = nnx.List(
            [GELU(width, wide, rngs=rngs), Identity(), Linear(wide, width, rngs=rngs)]
        )

    def __call__(self, x: Array) -> Array:  # b n c
        for layer in self.net:
            x = layer(x)
        return x


class DoubleBlock(nnx.Module):
    def __init__(self, config: FluxConfig, *, rngs: Rngs):
        width = config.width
        self.norm1 = Modulation(width, 6, rngs=rngs)
        self.norm1_context = Modulation(width, 6, rngs=rngs)
        self.attn = JointAttention(config, rngs=rngs)
        self.ff = FeedForward(width, rngs=rngs)
        self.ff_context = FeedForward(width, rngs=rngs)

    def __call__(
        self, image: Array, text: Array, conditioning: Array, turn: Array
    ) -> tuple[Array, Array]:  # b n c, b m c
        shift, scale, gate, *image_ff = self.norm1(conditioning)
        text_shift, text_scale, text_gate, *text_ff = self.norm1_context(conditioning)
        from_image, from_text = self.attn.both(
            modulated(image, shift, scale), modulated(text, text_shift, text_scale), turn
        )
        image = _fed_forward(image + gate * from_image, self.ff, *image_ff)
        text = _fed_forward(text + text_gate * from_text, self.ff_context, *text_ff)
        return image, text


def _fed_forward(x: Array, ff: FeedForward, shift: Array, scale: Array, gate: Array) -> Array:
    return x + gate * ff(modulated(x, shift, scale))


class SingleBlock(nnx.Module):
    def __init__(self, config: FluxConfig, *, rngs: Rngs):
        width, wide = config.width, _MLP_RATIO * config.width
        self.norm = Modulation(width, 3, rngs=rngs)
        self.proj_mlp = Linear(width, wide, rngs=rngs)
        self.proj_out = Linear(width + wide, width, rngs=rngs)
        self.attn = SelfAttention(config, rngs=rngs)

    def __call__(self, x: Array, conditioning: Array, turn: Array) -> tuple[Array]:  # b m+n c
        shift, scale, gate = self.norm(conditioning)
        y = modulated(x, shift, scale)
        out = self.proj_out.of_parts(self.attn(y, turn), _gelu(self.proj_mlp(y)))
        return (x + gate * out,)


class Flux(nnx.Module):
    """Args:
    scan: stack the blocks' weights (see `stack`); otherwise each block has its own, as in PyTorch.
    """

    def __init__(self, config: FluxConfig, *, remat: bool = False, scan: bool = True, rngs: Rngs):
        width, blocks = config.width, Stack if scan else Sequence
        self.time_text_embed = Conditioning(config, rngs=rngs)
        self.context_embedder = Linear(config.joint_attention_dim, width, rngs=rngs)
        self.x_embedder = Linear(config.in_channels, width, rngs=rngs)
        double, single = (
            lambda rngs, block=block: block(config, rngs=rngs)
            for block in (DoubleBlock, SingleBlock)
        )
        self.transformer_blocks = blocks(double, config.num_layers, remat=remat, rngs=rngs)
        self.single_transformer_blocks = blocks(
            single, config.num_single_layers, remat=remat, rngs=rngs
        )
        self.norm_out = Modulation(width, 2, rngs=rngs)
        self.proj_out = Linear(width, config.in_channels, rngs=rngs)
        self.config = config

    def __call__(
        self,
        z: Array,
        t: Array | float,
        context: Array,
        pooled: Array,
        *,
        guidance: Array | float = 1.0,  # OMGSR's, in training and inference
    ) -> Array:
        """The velocity in latents `z` (b h w c, even sides) at time `t` (0 .. 1, scalar or b).

        `context` has an embedding per token of the prompt (b m c), `pooled` one for all (b c).
        """
        _, h, w, _ = z.shape
        conditioning = self._conditioning(z, t, pooled, guidance)
        _, image = self._streams(z, context, conditioning)
        scale, shift = self.norm_out(conditioning)
        velocity = self.proj_out(modulated(image, shift, scale))
        return unpack(velocity, (h, w))

    def features(
        self, z: Array, t: Array | float, context: Array, pooled: Array
    ) -> list[Array]:  # b h/2 w/2 c
        """The image behind the double-stream blocks, and behind the single-stream blocks."""
        b, h, w, _ = z.shape
        streams = self._streams(z, context, self._conditioning(z, t, pooled, 1.0))
        return [image.reshape(b, h // 2, w // 2, -1) for image in streams]

    def _conditioning(
        self, z: Array, t: Array | float, pooled: Array, guidance: Array | float
    ) -> Array:
        each = partial(jnp.broadcast_to, shape=z.shape[:1])
        return self.time_text_embed(
            each(jnp.asarray(t, jnp.float32)), each(jnp.asarray(guidance, jnp.float32)), pooled
        )

    def _streams(self, z: Array, context: Array, conditioning: Array) -> tuple[Array, Array]:
        """The image's tokens behind both kinds of blocks."""
        (_, h, w, _), m = z.shape, context.shape[1]
        turn = rotation(positions(m, (h, w)), self.config.axes_dims_rope)
        turn = joined(turn[:, :m], turn[:, m:])
        image, text = self.x_embedder(pack(z)), self.context_embedder(context)
        image, text = self.transformer_blocks((image, text), conditioning, turn)
        both = joined(text, image)
        (both,) = self.single_transformer_blocks((both,), conditioning, turn)
        _, of_image = parted(both, m)
        return image, of_image
