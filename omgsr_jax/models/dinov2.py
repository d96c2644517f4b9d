"""DINOv2's vision transformers (S, B and L with patches of 14 pixels)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from .features import IMAGENET_MEAN, Colour, normalized
from .layers import (
    ACTIVATIONS,
    Conv,
    LayerNorm,
    Linear,
    Rngs,
    initial,
    remat,
    require_activation,
    require_heads,
)
from .ops.attention import attention
from .ops.resize import resize_bicubic

_init_token = jax.nn.initializers.truncated_normal(0.02)


@dataclass(frozen=True)
class DINOv2Config:
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: float = 4
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    patch_size: int = 14
    # The square images that the position embeddings were made for.
    image_size: int = 518
    # Added to the new grid's size where position embeddings are interpolated: the original adds
    # 0.1, transformers nothing.
    interpolate_offset: float = 0.1
    # Subtracted from images in [0, 1].
    mean: Colour = IMAGENET_MEAN

    def __post_init__(self) -> None:
        require_heads(self.hidden_size, self.num_attention_heads)
        require_activation(self.hidden_act)

    @property
    def grid(self) -> int:
        """How many patches the position embeddings cover, per side."""
        return self.image_size // self.patch_size


class PatchEmbeddings(nnx.Module):
    def __init__(self, config: DINOv2Config, *, rngs: Rngs):
        patch = config.patch_size
        self.projection = Conv(3, config.hidden_size, patch, stride=patch, rngs=rngs)

    def __call__(self, x: Array) -> Array:  # b h w 3 -> b h/14 w/14 c
        return self.projection(x)


class Embeddings(nnx.Module):
    """Patches with their positions, and the class token before them."""

    def __init__(self, config: DINOv2Config, *, rngs: Rngs):
        width = config.hidden_size
        self.cls_token = nnx.Param(initial(_init_token, rngs, 1, 1, width))
        self.position_embeddings = nnx.Param(
            initial(_init_token, rngs, 1, 1 + config.grid**2, width)
        )
        self.patch_embeddings = PatchEmbeddings(config, rngs=rngs)
        self.config = config

    def __call__(self, x: Array) -> Array:  # b h w 3 -> b 1+n c
        x = self.patch_embeddings(x)
        b, h, w, c = x.shape
        positions = self.position_embeddings[...]
        tokens = (x + self._grid_positions(positions, h, w)).reshape(b, h * w, c)
        cls = jnp.broadcast_to(self.cls_token[...] + positions[:, :1], (b, 1, c))
        return jnp.concatenate([cls, tokens], axis=1)

    def _grid_positions(self, positions: Array, h: int, w: int) -> Array:  # -> 1 h w c
        side = self.config.grid
        grid = positions[:, 1:].reshape(1, side, side, -1)
        if (h, w) == (side, side):
            return grid
        return resize_bicubic(grid, (h, w), self.config.interpolate_offset)


class SelfAttention(nnx.Module):
    def __init__(self, config: DINOv2Config, *, rngs: Rngs):
        width = config.hidden_size
        self.query, self.key, self.value = (
            Linear(width, width, bias=config.qkv_bias, rngs=rngs) for _ in range(3)
        )
        self.heads = config.num_attention_heads

    def __call__(self, x: Array) -> Array:  # b n c
        def split(y: Array) -> Array:  # b n (k d) -> b n k d
            return y.reshape(*y.shape[:-1], self.heads, -1)

        q, k, v = (split(project(x)) for project in (self.query, self.key, self.value))
        return attention(q, k, v).reshape(x.shape)


class AttentionOutput(nnx.Module):
    def __init__(self, config: DINOv2Config, *, rngs: Rngs):
        self.dense = Linear(config.hidden_size, config.hidden_size, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.dense(x)


class Attention(nnx.Module):
    def __init__(self, config: DINOv2Config, *, rngs: Rngs):
        self.attention = SelfAttention(config, rngs=rngs)
        self.output = AttentionOutput(config, rngs=rngs)

    def __call__(self, x: Array) -> Array:  # b n c
        return self.output(self.attention(x))


class LayerScale(nnx.Module):
    def __init__(self, config: DINOv2Config):
        self.lambda1 = nnx.Param(jnp.ones(config.hidden_size))

    def __call__(self, x: Array) -> Array:
        return x * self.lambda1[...]


class MLP(nnx.Module):
    def __init__(self, config: DINOv2Config, *, rngs: Rngs):
        inner = int(config.hidden_size * config.mlp_ratio)
        self.fc1 = Linear(config.hidden_size, inner, rngs=rngs)
        self.fc2 = Linear(inner, config.hidden_size, rngs=rngs)
        self.activation = config.hidden_act

    def __call__(self, x: Array) -> Array:
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))


class Block(nnx.Module):
    def __init__(self, config: DINOv2Config, *, rngs: Rngs):
        self.norm1 = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config, rngs=rngs)
        self.layer_scale1 = LayerScale(config)
        self.norm2 = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config, rngs=rngs)
        self.layer_scale2 = LayerScale(config)

    def __call__(self, x: Array) -> Array:  # b n c
        x = x + self.layer_scale1(self.attention(self.norm1(x)))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))


class Encoder(nnx.Module):
    def __init__(self, config: DINOv2Config, *, rngs: Rngs):
        self.layer = nnx.List(Block(config, rngs=rngs) for _ in range(config.num_hidden_layers))


class DINOv2(nnx.Module):
    def __init__(self, config: DINOv2Config, *, remat: bool = False, rngs: Rngs):
        self.embeddings = Embeddings(config, rngs=rngs)
        self.encoder = Encoder(config, rngs=rngs)
        self.layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.config = config
        self.remat = remat

    def features(self, x: Array) -> list[Array]:
        """The patches (b h/14 w/14 c) after every block, behind the final norm."""
        b, h, w, _ = x.shape
        patch = self.config.patch_size
        tokens = self.embeddings(normalized(x, self.config.mean))
        maps = []
        for block in self.encoder.layer:
            tokens = remat(block, tokens) if self.remat else block(tokens)
            maps.append(self.layernorm(tokens[:, 1:]).reshape(b, h // patch, w // patch, -1))
        return maps
