"""One attention function: every back-end agrees, and the choice never fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from omgsr_jax.models.ops import attention as backends
from omgsr_jax.models.ops import cpu_attention
from omgsr_jax.models.ops.attention import attention
from tests.helpers import relative_error


def _qkv(b=2, n=24, m=24, heads=3, d=16, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return tuple(
        jnp.asarray(rng.standard_normal((b, tokens, heads, d)), dtype) for tokens in (n, m, m)
    )


@pytest.mark.parametrize("m", [24, 7])
def test_agrees_with_torch(m):
    qkv = _qkv(m=m)
    q, k, v = (torch.from_numpy(np.array(x)).transpose(1, 2) for x in qkv)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    assert relative_error(attention(*qkv), expected.numpy()) <= 1e-6


def test_bias_masks_as_in_torch():
    qkv = _qkv()
    causal = jnp.where(jnp.tril(jnp.ones((24, 24), bool)), 0.0, -jnp.inf)
    q, k, v = (torch.from_numpy(np.array(x)).transpose(1, 2) for x in qkv)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert relative_error(attention(*qkv, bias=causal), expected.transpose(1, 2).numpy()) <= 1e-6


@pytest.mark.parametrize("n", [24, 25])
@pytest.mark.parametrize(
    ("backend", "limit", "logits_per_query"),
    [
        (backends.chunked, (backends, "_WHOLE_LOGITS_BYTES"), 2 * 3 * 24),
        (cpu_attention.blocked, (cpu_attention, "CACHED_LOGITS_BYTES"), 24),
    ],
    ids=["chunked", "blocked"],
)
def test_attention_in_parts_and_its_gradient_equal_the_whole(
    monkeypatch, backend, limit, logits_per_query, n
):
    qkv = _qkv(n=n)
    monkeypatch.setattr(*limit, 4 * logits_per_query * 7)  # 7 queries at a time
    monkeypatch.setattr(cpu_attention, "_LEAST_ROWS", 1)

    def total(backend):
        return jax.value_and_grad(lambda *x: jnp.sum(jnp.sin(backend(*x))), argnums=(0, 1, 2))(*qkv)

    (value, gradients), (expected, expected_gradients) = (
        total(backend), total(backends.whole),
    )  # fmt: skip
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        assert relative_error(ours, theirs) <= 1e-6


def test_gradients_in_half_precision_are_as_good_as_those_of_the_whole():
    exact, rounded = _qkv(), _qkv(dtype=jnp.bfloat16)

    def gradients(backend, qkv):
        return jax.grad(lambda *x: jnp.sum(jnp.sin(backend(*x).astype(jnp.float32))), (0, 1, 2))(
            *qkv
        )

    triples = zip(
        gradients(cpu_attention.blocked, rounded),
        gradients(backends.whole, rounded),
        gradients(backends.whole, exact),
        strict=True,
    )
    for ours, whole, expected in triples:
        assert ours.dtype == jnp.bfloat16
        error, of_whole = (relative_error(x.astype(jnp.float32), expected) for x in (ours, whole))
        assert error <= max(1.1 * of_whole, 2**-8)


def test_the_logits_of_long_sequences_are_never_all_in_memory():
    def lowered(tokens, platform):
        shape = jax.ShapeDtypeStruct((1, tokens, 1, 512), jnp.float32)
        traced = jax.jit(attention).trace(shape, shape, shape)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "36864x36864" not in lowered(192 * 192, "cuda")
    assert "4096x4096" in lowered(4096, "cuda")
    assert "4096x4096" not in lowered(4096, "cpu")  # a cache is smaller
    assert "64x65536" in lowered(65536, "cpu")  # fewer rows than that are slow


def test_the_choice_falls_through_where_cudnn_is_not_there():
    """Lowering for CUDA on a machine without it must give XLA's attention, not an error."""
    qkv = [jax.ShapeDtypeStruct((1, 4096, 5, 64), jnp.bfloat16)] * 3
    gradient = jax.grad(lambda *x: jnp.sum(attention(*x).astype(jnp.float32)))
    text = jax.jit(gradient).trace(*qkv).lower(lowering_platforms=("cuda",)).as_text()
    assert "4096x4096" in text


@pytest.mark.parametrize("d", [64, 512, 20])
def test_a_refusing_backend_is_passed_over(monkeypatch, d):
    def refuses(q, k, v):
        raise NotImplementedError("not today")

    monkeypatch.setattr(backends, "cudnn", refuses)
    monkeypatch.setattr(backends, "splash", refuses)
    qkv = _qkv(d=d)
    assert relative_error(attention(*qkv), backends.whole(*qkv)) <= 1e-7


def test_cudnn_is_taken_when_it_can_be(monkeypatch):
    """Stand-ins that leave a mark in the program show which back-end is lowered where."""

    def marked(q, k, v):
        return jnp.cos(q)

    monkeypatch.setattr(backends, "cudnn", marked)
    qkv = [jax.ShapeDtypeStruct((1, 128, 2, 64), jnp.bfloat16)] * 3
    traced = jax.jit(attention).trace(*qkv)
    assert "cosine" in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "cosine" not in traced.lower(lowering_platforms=("cpu",)).as_text()


def test_softmax_is_fp32_for_bf16_operands():
    q, k, v = _qkv(n=512, m=512, dtype=jnp.bfloat16)
    exact = backends.whole(*(x.astype(jnp.float32) for x in (q, k, v)))
    assert attention(q, k, v).dtype == jnp.bfloat16
    assert relative_error(attention(q, k, v), exact) <= 5e-3


@pytest.mark.parametrize("tokens", [1024, 1056])  # and what is to be filled up
def test_splash_attention_and_its_gradients_compute_the_same(monkeypatch, tokens):
    """The TPU kernel, interpreted on the CPU, inside a mesh that shards batch and heads."""
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    on_tpu = kernels.make_splash_mha_single_device
    monkeypatch.setattr(
        kernels, "make_splash_mha_single_device", lambda *a, **k: on_tpu(*a, **k, interpret=True)
    )
    qkv = _qkv(b=1, n=tokens, m=tokens, heads=1, d=64)
    automatic = (jax.sharding.AxisType.Auto,) * 2

    def with_gradients(backend):
        def loss(*qkv):
            out = backend(*qkv)
            return jnp.square(out).sum(), out

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))

    with jax.set_mesh(jax.make_mesh((1, 1), ("data", "tensor"), axis_types=automatic)):
        found = with_gradients(backends.splash)(*qkv)
    for ours, expected in zip(
        jax.tree.leaves(found), jax.tree.leaves(with_gradients(backends.whole)(*qkv)), strict=True
    ):
        assert relative_error(ours, expected) <= 1e-5


@pytest.mark.parametrize(("tokens", "divided"), [(2048, True), (1024 + 128, False)])
def test_splash_attention_divides_the_queries_of_an_image_whose_rows_are(tokens, divided):
    automatic = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.sharding.AbstractMesh((1, 2), ("data", "spatial"), axis_types=automatic)
    operand = jax.ShapeDtypeStruct((1, tokens, 1, 64), jnp.bfloat16)
    with jax.sharding.use_abstract_mesh(mesh):
        text = str(jax.make_jaxpr(backends.splash)(*[operand] * 3))
    assert (f"bf16[1,1,{tokens // 2},64]" in text) == divided  # what a device's kernel is given


def test_cudnn_divides_the_queries_of_an_image_that_devices_share(monkeypatch):
    """With a stand-in for the kernel, which needs a GPU to be traced."""
    monkeypatch.setattr(
        jax.nn, "dot_product_attention", lambda q, k, v, implementation: backends.whole(q, k, v)
    )
    axes = ("data", "fsdp", "spatial", "tensor")
    automatic = (jax.sharding.AxisType.Auto,) * 4
    mesh = jax.sharding.AbstractMesh((1, 1, 2, 1), axes, axis_types=automatic)
    q, k, v = (jax.ShapeDtypeStruct((1, n, 2, 64), jnp.bfloat16) for n in (256, 80, 80))
    alone = str(jax.make_jaxpr(backends.cudnn)(q, k, v))
    with jax.sharding.use_abstract_mesh(mesh):
        shared = str(jax.make_jaxpr(backends.cudnn)(q, k, v))
    assert "bf16[1,128,2,64]" not in alone
    assert "bf16[1,128,2,64]" in shared  # what a device's kernel is given
    assert "bf16[1,40,2,64]" not in shared


@pytest.mark.parametrize(("n", "m"), [(1024, 77), (256, 256)])
def test_splash_attention_refuses_short_sequences(n, m):
    with pytest.raises(backends.RefusedError):
        backends.splash(*_qkv(b=1, n=n, m=m, heads=1, d=8))


def test_splash_attention_refuses_to_run_without_knowing_the_mesh():
    with pytest.raises(backends.RefusedError, match="how its operands are sharded"):
        backends.splash(*_qkv(b=1, n=1024, m=1024, heads=1, d=8))
