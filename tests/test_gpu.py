"""On a GPU: its own attention kernel is taken, and results are the CPU's.

JAX_PLATFORMS=cuda,cpu pytest tests/test_gpu.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import omgsr_jax
from conversion.parity.arrays import psnr
from conversion.parity.inference import jax_stages
from conversion.parity.training import small_training_config
from omgsr_jax import converted
from omgsr_jax.inference.prepare import for_inference
from omgsr_jax.models.ops import attention as backends
from omgsr_jax.training.run import Run
from tests.helpers import images, relative_error

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="needs a GPU and JAX_PLATFORMS=cuda,cpu"
)


@pytest.mark.parametrize(
    ("tokens", "others", "heads", "has_kernels"),
    [(4096, 4096, 5, True), (256, 77, 20, False)],
    ids=["between pixels", "odd number of tokens, which cuDNN refuses"],
)
def test_attention_in_bf16_is_cudnns_where_it_can_be(tokens, others, heads, has_kernels):
    rng = np.random.default_rng(0)
    qkv = [
        jnp.asarray(rng.standard_normal((2, n, heads, 64)), jnp.bfloat16)
        for n in (tokens, others, others)
    ]

    def gradients(attend):
        def loss(*qkv):
            return jnp.square(attend(*qkv).astype(jnp.float32)).sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))

    ours = gradients(backends.attention).lower(*qkv).compile()
    assert ("fmha" in ours.as_text()) == has_kernels
    exact = gradients(backends.whole)(*(x.astype(jnp.float32) for x in qkv))
    for a, b in zip(ours(*qkv), exact, strict=True):
        assert relative_error(a.astype(jnp.float32), b) <= 2e-2


def test_every_stage_of_a_restoration_is_the_cpus(tiny_model):
    x_l = images(0, 2, 64, 96, 3)
    stages = []
    for platform in ("gpu", "cpu"):
        with jax.default_device(jax.local_devices(backend=platform)[0]):
            model = for_inference(converted.read(tiny_model), "fp32")
            stages.append(jax_stages(model, x_l))
    for name, ours in stages[0].items():
        assert relative_error(ours, stages[1][name]) <= 1e-5, name


def test_bf16_images_are_near_fp32_ones(tiny_model):
    x = images(0, 1, 32, 32, 3)[0] * 0.5 + 0.5
    fp32, bf16 = (
        np.asarray(omgsr_jax.load(tiny_model, precision=p).upscale(x, scale=4), np.float32)
        for p in ("fp32", "bf16")
    )
    assert fp32.shape == (128, 128, 3)
    assert psnr(bf16, fp32, peak=255) >= 35


def test_train_steps_are_the_cpus(tiny_model):
    config = small_training_config(str(tiny_model), quirks=None)
    batch = {name: images(seed, 2, 32, 32, 3) for seed, name in enumerate(("lr", "hr"))}
    found = []
    for platform in ("gpu", "cpu"):
        run = Run.of(config, jax.local_devices(backend=platform)[:1])
        frozen, now = run.frozen(), run.start()
        losses = []
        for _ in range(3):
            now, metrics = run.step(now, frozen, batch)
            losses += [float(metrics[name]) for name in ("ldr", "mse", "features", "gan")]
        found.append(losses)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
