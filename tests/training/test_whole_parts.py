"""Parts of a generator that are trained themselves, beside adapters or instead of them."""

import dataclasses

import jax
import numpy as np
import pytest

from omgsr_jax import converted
from omgsr_jax.architectures import ARCHITECTURES
from omgsr_jax.models.unet import UNetConfig
from omgsr_jax.process import ScaledDDPM
from omgsr_jax.training.run import Run
from tests.training.runs import batches, random_base, smallest

_WHOLE = ("backbone.", "vae.encoder.branch.")
_CHANGES = {
    "model": {"encoder_rank": 0, "backbone_rank": 0, "whole": _WHOLE, "precision": "fp32"},
    "losses": {"mse": 0.0, "features": 0.0, "l1": 1.0, "spectrum": 0.1, "ldr": 0.1, "gan": 0.1},
    "discriminator": {
        "backbone": "pixels", "heads": "unet", "width": 4, "levels": (0,), "image_size": None,
        "relativistic": True,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """nano with a backbone of a few weights, as a converted model."""
    generator = dataclasses.replace(
        ARCHITECTURES["nano"],
        backbone=UNetConfig(
            in_channels=24, out_channels=24, block_out_channels=(8,), layers_per_block=1,
            attention=(True,), heads=(2,), transformer_depth=(1,), cross_attention_dim=32,
            norm_num_groups=4,
        ),
    )  # fmt: skip
    out = tmp_path_factory.mktemp("whole") / "base"
    return out, random_base(out, generator, 32)


@pytest.fixture(scope="module")
def begun(base):
    """A run before its first step: its frozen weights, its state."""
    model = {**_CHANGES["model"], "path": str(base[0]), "architecture": ""}
    run = Run.of(smallest(**{**_CHANGES, "model": model}), jax.devices()[:1])
    start = run.start()
    return run, run.frozen(), start, jax.device_get(start)


def test_what_is_trained_whole_begins_as_the_base_has_it(base, begun):
    _, params = base
    _, frozen, _, start = begun
    assert set(start.generator) == {name for name in params if name.startswith(_WHOLE)}
    for name, array in start.generator.items():
        np.testing.assert_array_equal(array, params[name])
    # The VAE that gives the targets is complete, and the backbone is not kept twice.
    assert {n for n in params if n.startswith("vae.")} <= set(frozen)
    assert not any(name.startswith("backbone.") for name in frozen)


def test_the_written_model_is_like_any_other(base, begun, tmp_path):
    run, _, _, start = begun
    run.write_model(str(tmp_path / "model"), start.generator, precision="bf16")
    card = converted.read_card(tmp_path / "model")
    assert card.generator.process == ScaledDDPM()
    assert card.generator.vae == ARCHITECTURES["nano"].vae
    assert card.generator.encoder_lora is card.generator.backbone_lora is None
    assert set(converted.stored_shapes(tmp_path / "model")) == set(base[1])


def test_a_step_changes_all_of_it_and_the_discriminator(begun):
    run, frozen, state, start = begun
    (batch,) = batches(1)
    compiled = run.lower(batch).compile({"xla_backend_optimization_level": 0})
    end, metrics = jax.device_get(compiled(state, frozen, jax.device_put(batch)))  # takes `state`
    assert all(np.abs(end.generator[n] - a).max() > 0 for n, a in start.generator.items()
               if not n.endswith("to_k.kernel") and "attn2" not in n)  # fmt: skip
    assert any(np.abs(end.discriminator[n] - a).max() > 0 for n, a in start.discriminator.items())
    assert {"ldr", "l1", "spectrum", "gan", "discriminator"} <= set(metrics)
    assert all(np.isfinite(value).all() for value in metrics.values())
