"""The Z-Image transformer: latents and a prompt as one stream of tokens.

noise_refiner, context_refiner   a few blocks for the image, and for the prompt, by themselves
layers                           the same blocks for both together, the image first

Here the time is the share of noise, and the prediction is the velocity from image to noise, as in
FLUX. Z-Image itself counts the time the other way and predicts the opposite: `ZImage` translates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from .embeddings import timestep_embedding
from .layers import Identity, Linear, RMSNorm, Rngs, require_heads, standardised, zeros
from .ops.attention import attention
from .ops.rows import joined, parted
from .rotary import angles, rotate
from .stack import Sequence, Stack

_SINUSOIDS = 256
_STEPS = _TIME_SCALE = 1000.0  # the network wants times in thousandths
_MOST_TIME_CHANNELS = 256
_TIME_HIDDEN = 1024
_LAST_EPS = 1e-6
_QK_EPS = 1e-5
_MULTIPLE = 32  # image and prompt are each filled up to a multiple of so many tokens
_MOST_REFINERS = 64
_SQUARES = "2-1"  # diffusers' name for squares of 2 x 2 latents in one frame

# All of a block's layers but its modulation, as the published adapters of OMGSR-F have them.
Z_IMAGE_TARGETS = (
    f"all_x_embedder.{_SQUARES}",
    "attention.to_k",
    "attention.to_q",
    "attention.to_v",
    "attention.to_out.0",
    "feed_forward.w1",
    "feed_forward.w2",
    "feed_forward.w3",
)


@dataclass(frozen=True)
class ZImageConfig:
    """Z-Image and Z-Image-Turbo."""

    latent_channels: int = 16
    hidden_size: int = 3840
    num_layers: int = 30
    num_refiner_layers: int = 2
    num_attention_heads: int = 30
    context_dim: int = 2560
    norm_eps: float = 1e-5
    rope_theta: float = 256.0
    # Of a head's channels, those that tell the place in the prompt, the row and the column.
    axes_dims: tuple[int, ...] = (32, 48, 48)

    # Latents enter in squares of this side.
    patch: ClassVar[int] = 2
    lora_targets: ClassVar[tuple[str, ...]] = Z_IMAGE_TARGETS

    def __post_init__(self) -> None:
        require_heads(self.hidden_size, self.num_attention_heads)
        axes, head = self.axes_dims, self.hidden_size // self.num_attention_heads
        if len(axes) != 3 or sum(axes) != head or any(d % 2 for d in axes):
            raise ValueError(
                f"axes_dims {axes} must be three even numbers that add up to a head's {head} "
                "channels"
            )
        if self.num_refiner_layers > _MOST_REFINERS or not self.rope_theta > 0:
            raise ValueError(
                f"there must be at most {_MOST_REFINERS} refiner layers and a positive rope_theta, "
                f"not {self.num_refiner_layers} and {self.rope_theta}"
            )

    @property
    def in_channels(self) -> int:
        """Of a token."""
        return self.latent_channels * self.patch**2

    @property
    def out_channels(self) -> int:
        return self.in_channels

    @property
    def time_channels(self) -> int:
        return min(self.hidden_size, _MOST_TIME_CHANNELS)

    @property
    def prompt_widths(self) -> dict[str, tuple[int, int]]:
        """What it is given of a prompt: the axes of each embedding, and the last one's length."""
        return {"context": (2, self.context_dim)}


# Tokens.


def pack(z: Array) -> Array:
    """Latents in squares of 2 x 2: b h w c -> b (h/2 w/2) 4c, the channels of a latent together."""
    b, h, w, c = z.shape
    squares = z.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(b, h * w // 4, 4 * c)


def unpack(tokens: Array, size: tuple[int, int]) -> Array:
    """The inverse of `pack`, for latents of height and width `size`."""
    (b, _, c), (h, w) = tokens.shape, size
    squares = tokens.reshape(b, h // 2, w // 2, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(b, h, w, c // 4)


def filled_up(tokens: Array, filler: Array) -> Array:
    """A multiple of `_MULTIPLE` tokens, of which the last are the filler (1 c): b n c -> b n' c."""
    b, n, c = tokens.shape
    fillers = jnp.broadcast_to(filler.astype(tokens.dtype), (b, _missing(n), c))
    return jnp.concatenate([tokens, fillers], axis=1)


def _missing(tokens: int) -> int:
    return -tokens % _MULTIPLE


def rotations(text: int, size: tuple[int, int], config: ZImageConfig) -> tuple[Array, Array]:
    """How tokens turn by where they are, 2 n d/2: those of the image, and those of the prompt.

    A prompt has its places from 1 on, its filler's included. An image has the next one, and rows
    and columns; its filler has none.
    """
    text += _missing(text)
    h, w = size[0] // 2, size[1] // 2
    place, row, column = (
        partial(angles, channels=d, theta=config.rope_theta) for d in config.axes_dims
    )
    # In fp64, as small tables: a large angle would lose its digits.
    along_text, along_rows, along_columns = (
        jnp.asarray(of, jnp.float32)
        for of in (place(np.arange(1, text + 2)), row(np.arange(h)), column(np.arange(w)))
    )
    grid = [
        jnp.broadcast_to(part, (h, w, part.shape[-1]))
        for part in (along_text[-1], along_rows[:, None], along_columns)
    ]
    image = jnp.concatenate(grid, axis=-1).reshape(h * w, -1)
    image = jnp.pad(image, ((0, _missing(h * w)), (0, 0)))
    prompt = jnp.pad(along_text[:-1], ((0, 0), (0, image.shape[-1] - along_text.shape[-1])))
    return _turn(image), _turn(prompt)


def _turn(by: Array) -> Array:
    return jnp.stack([jnp.cos(by), jnp.sin(by)])


# Conditioning.


class TimeEmbedder(nnx.Module):
    def __init__(self, channels: int, *, rngs: Rngs):
        first = Linear(_SINUSOIDS, _TIME_HIDDEN, rngs=rngs)
        self.mlp = nnx.List([first, Identity(), Linear(_TIME_HIDDEN, channels, rngs=rngs)])

    def __call__(self, t: Array) -> Array:  # b -> b c
        sinusoids = timestep_embedding(_TIME_SCALE * t, _SINUSOIDS)
        return self.mlp[2](jax.nn.silu(self.mlp[0](sinusoids)))


# Blocks.


class Attention(nnx.Module):
    def __init__(self, config: ZImageConfig, *, rngs: Rngs):
        width, heads = config.hidden_size, config.num_attention_heads
        linear = partial(Linear, width, width, bias=False, rngs=rngs)
        self.norm_q = RMSNorm(width // heads, eps=_QK_EPS)
        self.norm_k = RMSNorm(width // heads, eps=_QK_EPS)
        self.to_q, self.to_k, self.to_v = linear(), linear(), linear()
        self.to_out = nnx.List([linear()])
        self.heads = heads

    def __call__(self, x: Array, turn: Array) -> Array:  # b n c
        q, k, v = (
            project(x).reshape(*x.shape[:-1], self.heads, -1)  # b n k d
            for project in (self.to_q, self.to_k, self.to_v)
        )
        y = attention(rotate(self.norm_q(q), turn), rotate(self.norm_k(k), turn), v)
        return self.to_out[0](y.reshape(x.shape))


class FeedForward(nnx.Module):
    def __init__(self, width: int, *, rngs: Rngs):
        wide = int(width / 3 * 8)
        self.w1 = Linear(width, wide, bias=False, rngs=rngs)
        self.w2 = Linear(wide, width, bias=False, rngs=rngs)
        self.w3 = Linear(width, wide, bias=False, rngs=rngs)

    def __call__(self, x: Array) -> Array:  # b n c
        return self.w2(jax.nn.silu(self.w1(x)) * self.w3(x))


class BlockLayers(nnx.Module):
    """Attention and feed-forward, each between two norms."""

    def __init__(self, config: ZImageConfig, *, rngs: Rngs):
        norm = partial(RMSNorm, config.hidden_size, eps=config.norm_eps)
        self.attention = Attention(config, rngs=rngs)
        self.feed_forward = FeedForward(config.hidden_size, rngs=rngs)
        self.attention_norm1, self.attention_norm2 = norm(), norm()
        self.ffn_norm1, self.ffn_norm2 = norm(), norm()


class Block(BlockLayers):
    def __call__(self, x: Array, turn: Array) -> tuple[Array]:  # b n c
        x = x + self.attention_norm2(self.attention(self.attention_norm1(x), turn))
        return (x + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x))),)


class ModulatedBlock(BlockLayers):
    """What goes in is scaled by the time, and what comes out is let through by it."""

    def __init__(self, config: ZImageConfig, *, rngs: Rngs):
        super().__init__(config, rngs=rngs)
        linear = Linear(config.time_channels, 4 * config.hidden_size, rngs=rngs)
        self.adaLN_modulation = nnx.List([linear])

    def __call__(self, x: Array, time: Array, turn: Array) -> tuple[Array]:  # b n c, b c
        vectors = self.adaLN_modulation[0](time)[:, None, :]
        scale, gate, ff_scale, ff_gate = jnp.split(vectors, 4, axis=-1)
        y = self.attention(self.attention_norm1(x) * (1 + scale), turn)
        x = x + jnp.tanh(gate) * self.attention_norm2(y)
        y = self.feed_forward(self.ffn_norm1(x) * (1 + ff_scale))
        return (x + jnp.tanh(ff_gate) * self.ffn_norm2(y),)


class FinalLayer(nnx.Module):
    def __init__(self, config: ZImageConfig, *, rngs: Rngs):
        width = config.hidden_size
        self.linear = Linear(width, config.out_channels, rngs=rngs)
        self.adaLN_modulation = nnx.List(
            [Identity(), Linear(config.time_channels, width, rngs=rngs)]
        )

    def __call__(self, x: Array, time: Array) -> Array:  # b n c, b c
        scale = 1 + self.adaLN_modulation[1](jax.nn.silu(time))[:, None, :]
        return self.linear((standardised(x, _LAST_EPS) * scale).astype(x.dtype))


class ZImage(nnx.Module):
    """Args:
    scan: stack the blocks' weights (see `stack`); otherwise each block has its own, as in PyTorch.
    """

    def __init__(self, config: ZImageConfig, *, remat: bool = False, scan: bool = True, rngs: Rngs):
        width = config.hidden_size

        def blocks(kind: Callable[..., nnx.Module], depth: int) -> Stack | Sequence:
            stacked = Stack if scan else Sequence
            return stacked(lambda rngs: kind(config, rngs=rngs), depth, remat=remat, rngs=rngs)

        self.all_x_embedder = nnx.Dict({_SQUARES: Linear(config.in_channels, width, rngs=rngs)})
        self.all_final_layer = nnx.Dict({_SQUARES: FinalLayer(config, rngs=rngs)})
        self.noise_refiner = blocks(ModulatedBlock, config.num_refiner_layers)
        self.context_refiner = blocks(Block, config.num_refiner_layers)
        self.t_embedder = TimeEmbedder(config.time_channels, rngs=rngs)
        norm = RMSNorm(config.context_dim, eps=config.norm_eps)
        self.cap_embedder = nnx.List([norm, Linear(config.context_dim, width, rngs=rngs)])
        self.x_pad_token = nnx.Param(zeros(rngs, 1, width))
        self.cap_pad_token = nnx.Param(zeros(rngs, 1, width))
        self.layers = blocks(ModulatedBlock, config.num_layers)
        self.config = config

    def __call__(self, z: Array, t: Array | float, context: Array) -> Array:
        """The velocity in latents `z` (b h w c, even sides) at time `t` (0 .. 1, scalar or b).

        `context` has an embedding per token of the prompt (b m c).
        """
        _, h, w, _ = z.shape
        time = self._time(z, t)
        _, image = self._streams(z, context, time)
        return -unpack(self.all_final_layer[_SQUARES](image, time), (h, w))

    def features(self, z: Array, t: Array | float, context: Array) -> list[Array]:
        """The image behind its refiner, and behind all layers: b h/2 w/2 c."""
        b, h, w, _ = z.shape
        streams = self._streams(z, context, self._time(z, t))
        return [image.reshape(b, h // 2, w // 2, -1) for image in streams]

    def _time(self, z: Array, t: Array | float) -> Array:
        # In the order of the pipeline: thousandths in fp32 have no digits to lose.
        left = (_STEPS - _STEPS * jnp.asarray(t, jnp.float32)) / _STEPS
        return self.t_embedder(jnp.broadcast_to(left, z.shape[:1]))

    def _streams(self, z: Array, context: Array, time: Array) -> tuple[Array, Array]:
        """The image's tokens behind the blocks that it has for itself, and behind all of them."""
        _, h, w, _ = z.shape
        of_image, of_text = rotations(context.shape[1], (h, w), self.config)
        tokens = h * w // 4

        image = filled_up(self.all_x_embedder[_SQUARES](pack(z)), self.x_pad_token[...])
        (image,) = self.noise_refiner((image,), time, of_image)
        norm, embed = self.cap_embedder
        text = filled_up(embed(norm(context)), self.cap_pad_token[...])
        (text,) = self.context_refiner((text,), of_text)
        both = joined(image, text)
        (both,) = self.layers((both,), time, joined(of_image, of_text))
        of_both, _ = parted(both, image.shape[1])
        return image[:, :tokens], of_both[:, :tokens]
