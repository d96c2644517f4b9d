"""Qwen3 as a text encoder, as Z-Image uses it: a prompt to one embedding per token."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from .layers import Embedding, Linear, RMSNorm, Rngs, require_heads
from .ops.attention import attention
from .rotary import angles, rotate_halves

_HIDDEN = -1e30  # the logit of a token that comes later


@dataclass(frozen=True)
class Qwen3Config:
    """Qwen3-4B."""

    vocab_size: int = 151936
    hidden_size: int = 2560
    intermediate_size: int = 9728
    num_hidden_layers: int = 36
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int = 128
    norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0

    def __post_init__(self) -> None:
        require_heads(self.num_attention_heads, self.num_key_value_heads)
        if self.head_dim % 2 or not self.rope_theta > 0:
            raise ValueError(
                f"head_dim must be even and rope_theta positive, not {self.head_dim} and "
                f"{self.rope_theta}"
            )


class SelfAttention(nnx.Module):
    """Attention to this token and those before it. Several heads share keys and values."""

    def __init__(self, config: Qwen3Config, *, rngs: Rngs):
        width, d = config.hidden_size, config.head_dim
        heads, shared = config.num_attention_heads, config.num_key_value_heads
        linear = partial(Linear, bias=False, rngs=rngs)
        self.q_proj = linear(width, heads * d)
        self.k_proj = linear(width, shared * d)
        self.v_proj = linear(width, shared * d)
        self.o_proj = linear(heads * d, width)
        self.q_norm = RMSNorm(d, eps=config.norm_eps)
        self.k_norm = RMSNorm(d, eps=config.norm_eps)
        self.sharing = heads // shared
        self.head_dim = d

    def __call__(self, x: Array, turn: Array, mask: Array) -> Array:  # b n c
        q, k, v = (
            project(x).reshape(*x.shape[:-1], -1, self.head_dim)  # b n k d
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate_halves(self.q_norm(q), turn), rotate_halves(self.k_norm(k), turn)
        k, v = (jnp.repeat(shared, self.sharing, axis=2) for shared in (k, v))
        return self.o_proj(attention(q, k, v, bias=mask).reshape(*x.shape[:-1], -1))


class FeedForward(nnx.Module):
    def __init__(self, config: Qwen3Config, *, rngs: Rngs):
        width, wide = config.hidden_size, config.intermediate_size
        self.gate_proj = Linear(width, wide, bias=False, rngs=rngs)
        self.up_proj = Linear(width, wide, bias=False, rngs=rngs)
        self.down_proj = Linear(wide, width, bias=False, rngs=rngs)

    def __call__(self, x: Array) -> Array:  # b n c
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nnx.Module):
    def __init__(self, config: Qwen3Config, *, rngs: Rngs):
        self.self_attn = SelfAttention(config, rngs=rngs)
        self.mlp = FeedForward(config, rngs=rngs)
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.norm_eps)

    def __call__(self, x: Array, turn: Array, mask: Array) -> Array:  # b n c
        x = x + self.self_attn(self.input_layernorm(x), turn, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Qwen3Encoder(nnx.Module):
    """Its last block and its last norm are of the checkpoint, and are not computed."""

    def __init__(self, config: Qwen3Config, *, rngs: Rngs):
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, rngs=rngs)
        self.layers = nnx.List(Block(config, rngs=rngs) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.config = config

    def __call__(
        self, ids: Array, fetch: Callable[[str, Any], Any] = lambda path, part: part
    ) -> Array:
        """Token ids (b n) to what the last block but one puts out (b n c).

        `fetch` gives a part, and its path, its weights when its turn has come: see `T5Encoder`.
        """
        config, n = self.config, ids.shape[1]
        by = angles(np.arange(n), config.head_dim, config.rope_theta)
        turn = jnp.asarray(np.stack([np.cos(by), np.sin(by)]), jnp.float32)
        mask = jnp.where(jnp.tri(n, dtype=bool), 0, _HIDDEN)
        x = fetch("embed_tokens", self.embed_tokens)(ids)
        for i, block in enumerate(self.layers[:-1]):
            x = fetch(f"layers.{i}", block)(x, turn, mask)
        return x
