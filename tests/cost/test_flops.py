"""The arithmetic that a step needs, counted from what is traced."""

import jax
import jax.numpy as jnp
import pytest
import torch
from diffusers import AutoencoderKL
from torch.utils.flop_counter import FlopCounterMode

from omgsr_jax.cost import flops
from omgsr_jax.cost.flops import Flops, count
from omgsr_jax.models.ops.attention import attention
from omgsr_jax.models.vae import VAE, VAEConfig
from omgsr_jax.training.blueprint import Blueprint
from tests.training.runs import smallest


@pytest.mark.parametrize("tokens", [256, 2048, 8192])  # all logits at once, by blocks, by chunks
def test_attention_is_counted_whole_whatever_the_platform(tokens):
    q, k, v = (jax.ShapeDtypeStruct((1, tokens, 8, 64), jnp.bfloat16) for _ in range(3))
    found = count(jax.make_jaxpr(attention)(q, k, v).jaxpr)
    products = 2 * 2 * tokens**2 * 8 * 64
    assert found == Flops(attention=products, kernels=products if tokens >= 1024 else 0)


def test_a_vae_is_counted_as_pytorch_counts_it():
    """Its platforms enlarge maps in ways that take more products, or fewer."""
    config = VAEConfig()
    ours = [
        flops.forward_flops(VAE(config, rngs=None), run, shape)
        for run, shape in (
            (lambda vae, x: vae.encode(x).mean, (512, 512, 3)),
            (lambda vae, z: vae.decode(z), (64, 64, 4)),
        )
    ]
    with torch.device("meta"):
        theirs = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        inputs = torch.zeros(1, 3, 512, 512), torch.zeros(1, 4, 64, 64)
        for run, x, mine in zip((theirs.encode, theirs.decode), inputs, ours, strict=True):
            with FlopCounterMode(display=False) as counted:
                run(x)
            assert mine.weights + mine.attention == pytest.approx(counted.get_total_flops(), 1e-3)


def test_a_loop_is_counted_as_often_as_it_runs_or_once():
    def run(x, weights):
        return jax.lax.scan(lambda x, weight: (x @ weight, None), x, weights)[0]

    jaxpr = jax.make_jaxpr(run)(jnp.zeros((4, 8)), jnp.zeros((5, 8, 8))).jaxpr
    once = 2 * 4 * 8 * 8
    assert count(jaxpr) == Flops(weights=5 * once)
    assert count(jaxpr, loops_once=True) == Flops(weights=once)


@pytest.mark.slow
def test_utilisation_is_what_a_step_needs_of_what_the_devices_could_do(monkeypatch):
    blueprint = Blueprint.of(smallest())
    assert flops.utilisation(blueprint) is None  # of a CPU no peak is known
    needed = flops.step_flops(blueprint).total
    kind, devices = jax.devices()[0].device_kind, jax.device_count()
    monkeypatch.setitem(flops.PEAKS, kind, (needed, 1.0, 1.0, 1.0))
    assert flops.utilisation(blueprint)(4.0) == pytest.approx(0.25 / devices)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("mesh.fsdp=4", ("mesh.fsdp", 4)),
        ("model.remat=True", ("model.remat", True)),
        ("model.architecture=tiny", ("model.architecture", "tiny")),
    ],
)
def test_settings_of_a_compiled_step_are_numbers_or_words(given, expected):
    from scripts.aot_compile import setting  # sets the platform: not where others collect

    assert setting(given) == expected


def test_a_setting_without_a_value_is_refused():
    from scripts.aot_compile import setting

    with pytest.raises(SystemExit, match=r"mesh\.fsdp.*NAME=VALUE"):
        setting("mesh.fsdp")
