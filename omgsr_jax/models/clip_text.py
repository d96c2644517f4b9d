"""The CLIP text encoder: OpenCLIP-H as Stable Diffusion 2.x uses it, CLIP-L for 1.x and FLUX.

Stable Diffusion 2.x takes the penultimate layer of a 24-layer encoder; its checkpoints say so by
having 23 layers, so nothing here depends on it.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax import Array

from .layers import (
    ACTIVATIONS,
    Embedding,
    LayerNorm,
    Linear,
    Rngs,
    require_activation,
    require_heads,
)
from .ops.attention import attention

# Checkpoints older than transformers 4.30 name 2 as the end of text, while their tokenizers write
# another id there; their end of text is the largest id.
_LEGACY_EOS = 2


@dataclass(frozen=True)
class CLIPTextConfig:
    vocab_size: int = 49408
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 23
    num_attention_heads: int = 16
    max_position_embeddings: int = 77
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407

    def __post_init__(self) -> None:
        require_heads(self.hidden_size, self.num_attention_heads)
        require_activation(self.hidden_act)


class Embeddings(nnx.Module):
    def __init__(self, config: CLIPTextConfig, *, rngs: Rngs):
        width = config.hidden_size
        self.token_embedding = Embedding(config.vocab_size, width, rngs=rngs)
        self.position_embedding = Embedding(config.max_position_embeddings, width, rngs=rngs)

    def __call__(self, ids: Array) -> Array:  # b n -> b n c
        return self.token_embedding(ids) + self.position_embedding(jnp.arange(ids.shape[1]))


class SelfAttention(nnx.Module):
    def __init__(self, config: CLIPTextConfig, *, rngs: Rngs):
        width = config.hidden_size
        self.q_proj = Linear(width, width, rngs=rngs)
        self.k_proj = Linear(width, width, rngs=rngs)
        self.v_proj = Linear(width, width, rngs=rngs)
        self.out_proj = Linear(width, width, rngs=rngs)
        self.heads = config.num_attention_heads

    def __call__(self, x: Array, bias: Array) -> Array:  # b n c
        def split(y: Array) -> Array:  # b n (k d) -> b n k d
            return y.reshape(*y.shape[:-1], self.heads, -1)

        q, k, v = (split(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attention(q, k, v, bias=bias).reshape(x.shape))


class MLP(nnx.Module):
    def __init__(self, config: CLIPTextConfig, *, rngs: Rngs):
        self.fc1 = Linear(config.hidden_size, config.intermediate_size, rngs=rngs)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size, rngs=rngs)
        self.activation = config.hidden_act

    def __call__(self, x: Array) -> Array:
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))


class EncoderLayer(nnx.Module):
    def __init__(self, config: CLIPTextConfig, *, rngs: Rngs):
        self.layer_norm1 = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SelfAttention(config, rngs=rngs)
        self.layer_norm2 = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config, rngs=rngs)

    def __call__(self, x: Array, bias: Array) -> Array:
        x = x + self.self_attn(self.layer_norm1(x), bias)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nnx.Module):
    def __init__(self, config: CLIPTextConfig, *, rngs: Rngs):
        self.layers = nnx.List(
            EncoderLayer(config, rngs=rngs) for _ in range(config.num_hidden_layers)
        )

    def __call__(self, x: Array) -> Array:
        n = x.shape[1]
        causal = jnp.where(jnp.tril(jnp.ones((n, n), bool)), 0.0, -jnp.inf)  # n m
        for layer in self.layers:
            x = layer(x, causal)
        return x


class CLIPTextEncoder(nnx.Module):
    def __init__(self, config: CLIPTextConfig, *, rngs: Rngs):
        self.embeddings = Embeddings(config, rngs=rngs)
        self.encoder = Encoder(config, rngs=rngs)
        self.final_layer_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.config = config

    def __call__(self, ids: Array) -> tuple[Array, Array]:
        """Token ids (b n) to one embedding per token (b n c) and one for the whole text (b c)."""
        tokens = self.final_layer_norm(self.encoder(self.embeddings(ids)))
        legacy = self.config.eos_token_id == _LEGACY_EOS
        end = jnp.argmax(ids if legacy else ids == self.config.eos_token_id, axis=1)
        return tokens, tokens[jnp.arange(ids.shape[0]), end]
