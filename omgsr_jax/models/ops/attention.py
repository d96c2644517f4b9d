"""Scaled dot-product attention: the one place that chooses how it is computed.

| platform | back-end | when |
|---|---|---|
| CUDA | cuDNN's fused kernel | bf16 or fp16, head size 8, 16 .. 128, even token counts, no bias |
| TPU | splash attention | from 1024 tokens on, no bias, in a mesh |
| CPU | XLA, a block of a head's logits at a time | more logits than a cache holds, no bias |
| any | XLA, all logits at once | the logits fit in `_WHOLE_LOGITS_BYTES` |
| any | XLA, a chunk of queries at a time | always |

A back-end that cannot take the call is passed over, and the next one is taken. The platform is the
one that the program is lowered for, so compiling for a TPU or a GPU that is not there works too.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from math import prod

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from . import rows
from .cpu_attention import CACHED_LOGITS_BYTES, blocked
from .rows import BATCH_AXES, SPATIAL

Backend = Callable[[Array, Array, Array], Array]

_WHOLE_LOGITS_BYTES = 2**30
_SPLASH_MIN_TOKENS = 1024
_SPLASH_BLOCKS = (512, 256, 128)
_HIDDEN = -1e5  # a hidden key's logit, times sqrt(d)
_HIDING = 8  # features: head sizes stay multiples of 8
_HEAD_AXIS = "tensor"


@jax.named_scope("attention")
def attention(
    q: Array, k: Array, v: Array, *, bias: Array | None = None, unseen: Array | None = None
) -> Array:
    """softmax(q k^T / sqrt(d) + bias) v, softmax in fp32.

    Args:
        q: queries, b n k d (n tokens, k heads, head size d).
        k, v: keys and values, b m k d.
        bias: added to the logits, broadcastable to b k n m.
        unseen: the keys that are passed over, b m.

    Returns:
        b n k d, in the dtype of `q`.
    """
    if bias is not None:
        return whole(q, k, v, bias=bias)
    if unseen is not None:
        return attention(*_blind_to(unseen, q, k, v))[..., : q.shape[-1]]
    # Of devices that share an image, each has some queries, and sees all keys.
    q, k, v = rows.by_rows(q), rows.undivided(k), rows.undivided(v)
    portable = whole if _logits_bytes(q, k) <= _WHOLE_LOGITS_BYTES else chunked
    y = lax.platform_dependent(
        q, k, v,
        cpu=blocked if _logits_bytes(q, k) > CACHED_LOGITS_BYTES else whole,
        cuda=_first_that_takes(q, k, v, cudnn, portable),
        tpu=_first_that_takes(q, k, v, splash, portable),
        default=portable,
    )  # fmt: skip
    return rows.by_rows(y)


def _logits_bytes(q: Array, k: Array) -> int:
    return 4 * q.shape[0] * q.shape[1] * k.shape[1] * q.shape[2] // rows.devices()


def _blind_to(unseen: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    """Operands with more features that hide keys: 1 in the queries, and a large negative number in
    such keys. So every back-end can be used, whether it knows of masks or not."""
    d = q.shape[-1]
    ones = jnp.full((*q.shape[:-1], _HIDING), 1 / _HIDING, q.dtype)
    hidden = jnp.where(unseen[:, :, None, None], _HIDDEN, 0).astype(k.dtype)
    hidden = jnp.broadcast_to(hidden, (*k.shape[:-1], _HIDING))
    return (
        jnp.concatenate([q * ((d + _HIDING) / d) ** 0.5, ones], axis=-1),
        jnp.concatenate([k, hidden], axis=-1),
        jnp.concatenate([v, jnp.zeros_like(hidden)], axis=-1),
    )


class RefusedError(Exception):
    """A back-end's way of saying that this call is not for it."""


def whole(q: Array, k: Array, v: Array, *, bias: Array | None = None) -> Array:
    """Attention with all logits in memory."""
    logits = jnp.einsum("bnkd,bmkd->bknm", q, k, preferred_element_type=jnp.float32)
    logits = logits * q.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("bknm,bmkd->bnkd", weights, v)


def chunked(q: Array, k: Array, v: Array) -> Array:
    """Attention over as many queries at a time as the memory limit allows; exact."""
    b, n, heads, d = q.shape
    bytes_per_query = 4 * b * heads * k.shape[1]
    size = max(1, _WHOLE_LOGITS_BYTES // bytes_per_query)
    count = -(-n // size)
    size = -(-n // count)
    padded = jnp.pad(q, ((0, 0), (0, count * size - n), (0, 0), (0, 0)))
    chunks = padded.reshape(b, count, size, heads, d).swapaxes(0, 1)
    out = lax.map(jax.checkpoint(lambda chunk: whole(chunk, k, v)), chunks)
    return out.swapaxes(0, 1).reshape(b, count * size, heads, d)[:, :n]


def cudnn(q: Array, k: Array, v: Array) -> Array:
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        raise RefusedError("cuDNN computes attention in bf16 and fp16 only")
    if q.shape[-1] % 8 or q.shape[-1] > 128:
        raise RefusedError("cuDNN wants a head size that is a multiple of 8, up to 128")
    fused = partial(jax.nn.dot_product_attention, implementation="cudnn")
    # By itself it is partitioned by batch and by heads, not by queries.
    return _over_devices(fused, q, k, v) if rows.devices() > 1 else fused(q, k, v)


def splash(q: Array, k: Array, v: Array) -> Array:
    """Flash attention for TPUs. XLA does not partition Pallas kernels, so it runs device by device.

    Sequences in no multiple of its blocks are filled up: the logits of DINOv2's 1370 tokens, which
    would be written and read several times, are more than what is computed in vain.
    """
    tokens, keys = q.shape[1], k.shape[1]
    if min(tokens, keys) < _SPLASH_MIN_TOKENS:
        raise RefusedError("splash attention pays for long sequences")
    if tokens % _SPLASH_BLOCKS[-1] or keys % _SPLASH_BLOCKS[-1]:
        q, k, v = map(_filled_up, (q, k, v))
    if jax.sharding.get_abstract_mesh().empty:
        raise RefusedError("splash attention must know how its operands are sharded")
    kernel = partial(_splash_on_one_device, keys=keys)
    return _over_devices(kernel, q, k, v, together=_SPLASH_BLOCKS[-1])[:, :tokens]


def _over_devices(backend: Backend, q: Array, k: Array, v: Array, together: int = 1) -> Array:
    """The batch, the heads and `together` queries or more on each device, as far as they divide."""
    mesh = jax.sharding.get_abstract_mesh()
    batch = tuple(axis for axis in BATCH_AXES if axis in mesh.axis_names)
    if q.shape[0] % prod(mesh.shape[axis] for axis in batch):
        batch = ()
    by_head = _HEAD_AXIS if _divides(mesh, _HEAD_AXIS, q.shape[2]) else None
    by_row = SPATIAL if _divides(mesh, SPATIAL, q.shape[1] // together) else None
    queries, shared = (PartitionSpec(batch, axis, by_head) for axis in (by_row, None))
    out: Array = jax.shard_map(
        backend, in_specs=(queries, shared, shared), out_specs=queries, check_vma=False
    )(q, k, v)
    return out


def _filled_up(x: Array) -> Array:
    """b n k d with as many tokens as the largest blocks take."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % _SPLASH_BLOCKS[0]), (0, 0), (0, 0)))


def _divides(mesh: jax.sharding.AbstractMesh, axis: str, count: int) -> bool:
    """Can `count` things be divided among devices along this axis?"""
    return mesh.shape.get(axis, 1) > 1 and count % mesh.shape[axis] == 0


def _splash_on_one_device(q: Array, k: Array, v: Array, keys: int) -> Array:
    """Attention to the first `keys` of the keys."""
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    (_, n, heads, d), m = q.shape, k.shape[1]
    block_q, block_kv = _largest_block(n), _largest_block(m)
    mask = kernels.MultiHeadMask([kernels.FullMask((n, m))] * heads)
    kernel = kernels.make_splash_mha_single_device(
        mask,
        block_sizes=kernels.BlockSizes(
            block_q=block_q,
            block_kv=block_kv,
            block_kv_compute=block_kv,
            block_q_dkv=block_q,
            block_kv_dkv=block_kv,
            block_kv_dkv_compute=block_kv,
            block_q_dq=block_q,
            block_kv_dq=block_kv,
        ),
    )
    q, k, v = ((x.swapaxes(1, 2)) for x in (q * d**-0.5, k, v))  # b k n d
    seen = None
    if keys < m:
        of_keys = (jnp.arange(m) < keys).astype(jnp.int32)
        seen = kernels.SegmentIds(q=jnp.ones(n, jnp.int32), kv=of_keys)
    return jax.vmap(kernel, in_axes=(0, 0, 0, None))(q, k, v, seen).swapaxes(1, 2)


def _largest_block(tokens: int) -> int:
    return next(block for block in _SPLASH_BLOCKS if tokens % block == 0)


def _first_that_takes(q: Array, k: Array, v: Array, preferred: Backend, other: Backend) -> Backend:
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v))
    return preferred if _takes(preferred, shapes, jax.sharding.get_abstract_mesh()) else other


@lru_cache(maxsize=256)
def _takes(backend: Backend, shapes: tuple[jax.ShapeDtypeStruct, ...], mesh: object) -> bool:
    """Can its forward and backward passes be traced for these operands (and under this mesh)?"""

    def forward_and_backward(*qkv: Array) -> tuple[Array, ...]:
        out, pull_back = jax.vjp(backend, *qkv)
        return pull_back(out)

    try:
        jax.eval_shape(forward_and_backward, *shapes)
    except Exception:  # any refusal, ours or the library's, has the same answer: the next back-end
        return False
    return True
