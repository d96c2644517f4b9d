"""The T5 encoder (v1.1, as FLUX uses it): a prompt to one embedding per token."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from .layers import ACTIVATIONS, Embedding, Linear, RMSNorm, Rngs
from .ops.attention import attention


@dataclass(frozen=True)
class T5Config:
    """T5-XXL."""

    vocab_size: int = 32128
    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    num_layers: int = 24
    num_heads: int = 64
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        buckets = self.relative_attention_num_buckets
        furthest = self.relative_attention_max_distance
        if buckets < 4 or furthest <= buckets // 4:
            raise ValueError(
                f"{buckets} buckets cannot tell distances up to {furthest}: there must be at least "
                "4, and the distance must be more than a quarter of them"
            )


class SelfAttention(nnx.Module):
    """Attention to all tokens, padding included, without the usual division by sqrt(d)."""

    def __init__(self, config: T5Config, *, first: bool, rngs: Rngs):
        width, inner = config.d_model, config.num_heads * config.d_kv
        self.q = Linear(width, inner, bias=False, rngs=rngs)
        self.k = Linear(width, inner, bias=False, rngs=rngs)
        self.v = Linear(width, inner, bias=False, rngs=rngs)
        self.o = Linear(inner, width, bias=False, rngs=rngs)
        # All blocks use the first one's.
        self.relative_attention_bias = (
            Embedding(config.relative_attention_num_buckets, config.num_heads, rngs=rngs)
            if first
            else None
        )
        self.heads = config.num_heads

    def __call__(self, x: Array, bias: Array) -> Array:  # b n c
        def split(y: Array) -> Array:  # b n (k d) -> b n k d
            return y.reshape(*y.shape[:-1], self.heads, -1)

        q, k, v = (split(project(x)) for project in (self.q, self.k, self.v))
        y = attention(q * math.sqrt(q.shape[-1]), k, v, bias=bias)
        return self.o(y.reshape(*x.shape[:2], -1))


class AttentionLayer(nnx.Module):
    def __init__(self, config: T5Config, *, first: bool, rngs: Rngs):
        self.SelfAttention = SelfAttention(config, first=first, rngs=rngs)
        self.layer_norm = RMSNorm(config.d_model, eps=config.layer_norm_epsilon)

    def __call__(self, x: Array, bias: Array) -> Array:
        return x + self.SelfAttention(self.layer_norm(x), bias)


class GatedDense(nnx.Module):
    def __init__(self, config: T5Config, *, rngs: Rngs):
        self.wi_0 = Linear(config.d_model, config.d_ff, bias=False, rngs=rngs)
        self.wi_1 = Linear(config.d_model, config.d_ff, bias=False, rngs=rngs)
        self.wo = Linear(config.d_ff, config.d_model, bias=False, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.wo(ACTIVATIONS["gelu_pytorch_tanh"](self.wi_0(x)) * self.wi_1(x))


class FeedForwardLayer(nnx.Module):
    def __init__(self, config: T5Config, *, rngs: Rngs):
        self.DenseReluDense = GatedDense(config, rngs=rngs)
        self.layer_norm = RMSNorm(config.d_model, eps=config.layer_norm_epsilon)

    def __call__(self, x: Array) -> Array:
        return x + self.DenseReluDense(self.layer_norm(x))


class Block(nnx.Module):
    def __init__(self, config: T5Config, *, first: bool, rngs: Rngs):
        self.layer = nnx.List(
            [AttentionLayer(config, first=first, rngs=rngs), FeedForwardLayer(config, rngs=rngs)]
        )

    def __call__(self, x: Array, bias: Array) -> Array:
        return self.layer[1](self.layer[0](x, bias))


class Encoder(nnx.Module):
    def __init__(self, config: T5Config, *, rngs: Rngs):
        self.block = nnx.List(
            Block(config, first=i == 0, rngs=rngs) for i in range(config.num_layers)
        )
        self.final_layer_norm = RMSNorm(config.d_model, eps=config.layer_norm_epsilon)


class T5Encoder(nnx.Module):
    def __init__(self, config: T5Config, *, rngs: Rngs):
        self.shared = Embedding(config.vocab_size, config.d_model, rngs=rngs)
        self.encoder = Encoder(config, rngs=rngs)
        self.config = config

    def __call__(
        self, ids: Array, fetch: Callable[[str, Any], Any] = lambda path, part: part
    ) -> Array:
        """Token ids (b n) to embeddings (b n c).

        `fetch` gives a part, and its path, its weights when its turn has come: T5-XXL is larger
        than many machines' memory, and none of its blocks is needed twice.
        """
        x, bias = fetch("shared", self.shared)(ids), None
        for i, block in enumerate(self.encoder.block):
            block = fetch(f"encoder.block.{i}", block)
            if bias is None:
                bias = self._bias(block, ids.shape[1])
            x = block(x, bias)
        return fetch("encoder.final_layer_norm", self.encoder.final_layer_norm)(x)

    def _bias(self, first: Any, n: int) -> Array:
        """What the distance from query to key adds to the logits of all blocks: k n n."""
        config, position = self.config, jnp.arange(n)
        buckets = distance_bucket(
            position[None, :] - position[:, None],
            config.relative_attention_num_buckets,
            config.relative_attention_max_distance,
        )
        return first.layer[0].SelfAttention.relative_attention_bias(buckets).transpose(2, 0, 1)


def distance_bucket(distance: Array, buckets: int, max_distance: int) -> Array:
    """Distances in either direction to buckets: one each when near, logarithmic further away."""
    half = buckets // 2
    near = half // 2
    away = jnp.abs(distance)
    scale = (half - near) / math.log(max_distance / near)
    far = near + (jnp.log(jnp.maximum(away, 1) / near) * scale).astype(jnp.int32)
    side = jnp.where(distance > 0, half, 0)
    return side + jnp.where(away < near, away, jnp.minimum(far, half - 1))
