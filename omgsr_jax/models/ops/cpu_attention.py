"""Attention on CPUs: a block of a head's logits at a time, with a backward pass of its own."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

CACHED_LOGITS_BYTES = 2**22
_LEAST_ROWS = 64  # of a block: each takes all keys out of memory again

_product = partial(jnp.matmul, preferred_element_type=jnp.float32)


@jax.custom_vjp
def blocked(q: Array, k: Array, v: Array) -> Array:
    """Attention over blocks of one head's queries, whose logits stay in a processor's cache.

    Several times as fast on CPUs as with all logits in memory.
    """
    return _blocked(q, k, v)[0]


def _blocked(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, ...]]:
    """The output, and what the backward pass needs to find the weights again."""

    def of_block(q: Array, k: Array, v: Array) -> tuple[Array, Array]:  # size d, d m, m d
        logits = _product(q, k) * q.shape[-1] ** -0.5
        largest = logits.max(-1, keepdims=True)
        powers = jnp.exp(logits - largest)
        total = powers.sum(-1, keepdims=True)
        # The output is divided, not the weights: they go into the product as they lie in the cache.
        out = _product(powers.astype(v.dtype), v) / total
        return out.astype(v.dtype), largest + jnp.log(total)

    def of_head(operands: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        q, k, v = operands  # count size d, m d, m d
        return lax.map(lambda block: of_block(block, k.T, v), q)

    out, log_total = lax.map(of_head, (_blocks(q, k), _heads(k), _heads(v)))
    out = _unblocked(out, q)
    return out, (q, k, v, out, log_total)


def _blocked_backward(kept: tuple[Array, ...], d_out: Array) -> tuple[Array, Array, Array]:
    """Gradients from weights that are computed again, block by block.

    Where a product sums over queries, the weights are its right side: XLA repacks a left side that
    it has to transpose, which takes longer on CPUs than all the rest.
    """
    q, k, v, out, log_total = kept
    scale = q.shape[-1] ** -0.5

    def of_block(sums: tuple[Array, Array], block: tuple[Array, ...], k: Array, v: Array) -> Any:
        d_k, d_v = sums  # d m, d m
        q, d_out, log_total, mean = block  # size d, size d, size 1, size 1
        weights = jnp.exp(_product(q, k.T) * scale - log_total)  # size m
        d_logits = weights * (_product(d_out, v.T) - mean) * scale
        weights, d_logits = weights.astype(v.dtype), d_logits.astype(v.dtype)
        sums = d_k + _product(q.T, d_logits), d_v + _product(d_out.T, weights)
        return sums, _product(d_logits, k)

    def of_head(operands: tuple[Array, ...]) -> tuple[Array, Array, Array]:
        *blocks, k, v = operands
        zeros = jnp.zeros(k.T.shape, jnp.float32)
        sums, d_q = lax.scan(partial(of_block, k=k, v=v), (zeros, zeros), tuple(blocks))
        d_k, d_v = lax.optimization_barrier(sums)  # else the transposes move into the products
        return d_q, d_k.T, d_v.T

    # From each of a row's gradients the softmax subtracts their mean by its weights, sum(w d_w);
    # which is d_out . out.
    mean = (d_out.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)
    blocks = _blocks(q, k), _blocks(d_out, k), log_total, _blocks(mean, k)
    d_q, d_k, d_v = lax.map(of_head, (*blocks, _heads(k), _heads(v)))
    return _unblocked(d_q, q), _unblocked(d_k, k), _unblocked(d_v, v)


blocked.defvjp(_blocked, _blocked_backward)


def _heads(x: Array) -> Array:  # b n k d -> bk n d
    b, n, heads, d = x.shape
    return x.swapaxes(1, 2).reshape(b * heads, n, d)


def _blocks(x: Array, k: Array) -> Array:  # b n k d -> bk count size d
    """Queries' rows in blocks whose logits for the keys `k` a cache holds; zeros fill the last."""
    n, m = x.shape[1], k.shape[1]
    count = min(-(-4 * n * m // CACHED_LOGITS_BYTES), -(-n // _LEAST_ROWS))
    size = -(-n // count)
    padded = jnp.pad(_heads(x), ((0, 0), (0, count * size - n), (0, 0)))
    return padded.reshape(padded.shape[0], count, size, x.shape[-1])


def _unblocked(x: Array, like: Array) -> Array:  # bk ... d -> b n k d
    b, n, heads, d = like.shape
    return x.reshape(b, heads, -1, d).swapaxes(1, 2)[:, :n].astype(like.dtype)
