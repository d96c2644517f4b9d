"""Quirks change what is built: one place, nothing that is handed on."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from omgsr_jax.converted import ModelCard
from omgsr_jax.losses import adversarial
from omgsr_jax.models.features import CLIP_MEAN
from omgsr_jax.models.flux import Flux
from omgsr_jax.models.vae import VAE
from omgsr_jax.training.blueprint import Blueprint
from omgsr_jax.training.state import learning_rate, random_weights
from tests.training.runs import smallest


@pytest.fixture
def told(monkeypatch):
    """What a blueprint's network is told of the time, in thousandths."""
    monkeypatch.setattr(Flux, "__call__", lambda self, z, time, **prompt: time)

    def told(drawn):
        generator = drawn.generator
        generator.prompt = nnx.Dict({})
        return float(1000 * generator.predict(jnp.zeros((1, 2, 2, 4))))

    return told


def draw(quirks, **changes):
    model = {"architecture": "smallest-flux", "mid_timestep": 244}
    return Blueprint.of(smallest(model=model, quirks=quirks, **changes))


def test_omgsr_f_trains_with_the_time_that_the_published_code_tells(told):
    assert told(draw(None)) == pytest.approx(505.11, abs=0.01)
    assert told(draw("v2")) == 504.0


def test_the_trained_models_description_is_the_same():
    plain, published = (
        ModelCard(draw(quirks).generator_config, 64, prompt="").to_json() for quirks in (None, "v1")
    )
    assert plain == published
    assert "rounded_time" not in plain["generator"]["process"]
    published.pop("format")  # which is looked at before
    assert not ModelCard.from_json(published, "card").generator.process.rounded_time


def test_losses_and_schedule_are_the_published_ones():
    losses = {"features": 0.0, "oc_lpips": 1.0, "gan": 0.5}
    judge = {
        "backbone": "dinov2",
        "heads": "token",
        "levels": (-8, -4, -1),
        "image_size": 518,
    }
    plain, published = (
        draw(quirks, losses=losses, discriminator=judge, optimizer={"warmup": 9})
        for quirks in (None, "v1")
    )
    assert not plain.networks["lpips_vgg"].unit_range
    assert published.networks["lpips_vgg"].unit_range
    assert published.networks["dinov2"].config.mean == CLIP_MEAN
    assert plain.networks["dinov2"].config.mean != CLIP_MEAN
    assert plain.discriminator_loss is adversarial.discriminator_loss
    assert published.discriminator_loss is adversarial.v1_discriminator_loss
    assert learning_rate(plain.config.optimizer, plain.config.run)(0) == 0
    first = learning_rate(published.config.optimizer, published.config.run)(0)
    assert first == published.config.optimizer.learning_rate


def test_v2_has_a_discriminator_loss_of_its_own():
    assert draw("v2").discriminator_loss is adversarial.v2_discriminator_loss


@pytest.mark.parametrize("quirks", ["v1", "v2"])
def test_omgsr_f_is_trained_on_pixels_that_are_not_clipped(quirks, monkeypatch):
    monkeypatch.setattr(VAE, "decode", lambda self, z: z[..., :3])
    z = jnp.linspace(-3, 3, 48).reshape(1, 1, 1, 48)
    plain, published = (draw(name).generator.decode(z) for name in (None, quirks))
    assert float(jnp.abs(plain).max()) <= 1
    assert float(jnp.abs(published).max()) > 2


def test_omgsr_s_is_trained_on_clipped_pixels(monkeypatch):
    monkeypatch.setattr(VAE, "decode", lambda self, z: z[..., :3])
    generator = Blueprint.of(smallest(quirks="v2")).generator
    assert float(jnp.abs(generator.decode(jnp.full((1, 1, 1, 4), 9.0))).max()) == 1


def test_omgsr_f_is_trained_on_latents_in_bf16(monkeypatch):
    """As torch rounds them after every operation, up to the decoder."""
    monkeypatch.setattr(VAE, "decode", lambda self, z: z)
    generator = draw("v2").generator
    process, config = generator.process, generator.vae.config
    z_h, eps, prediction = np.random.default_rng(0).standard_normal((3, 1, 4, 4, 16), np.float32)
    sigma = float(process.sigma(244))
    z, noise, velocity = (torch.from_numpy(x).bfloat16() for x in (z_h, eps, prediction))
    noised = (1 - sigma) * z + sigma * noise
    clean = z - sigma * velocity
    decoded = clean / config.scaling_factor + config.shift_factor
    assert bool((process.injected(jnp.asarray(z_h), 244) == z.float().numpy()).all())
    z_p = process.clean(process.injected(jnp.asarray(z_h), 244), jnp.asarray(prediction), 244)
    for ours, theirs in (
        (process.noised(jnp.asarray(z_h), jnp.asarray(eps), 244), noised),
        (z_p, clean),
        (generator.decode(z_p), decoded),
    ):
        np.testing.assert_array_equal(np.asarray(ours), theirs.float().numpy())


def test_heads_begin_as_pytorchs_do():
    """Weights and biases within 1 / sqrt(fan-in), none of them 0."""
    mesh = jax.make_mesh((1,), ("data",))
    shapes = Blueprint.of(smallest()).heads
    everywhere = NamedSharding(mesh, PartitionSpec())
    found = random_weights(shapes, dict.fromkeys(shapes, everywhere), seed=0)
    biases = {name for name in found if name.endswith("bias")}
    assert biases
    for name in biases:
        kernel = found[f"{name.removesuffix('bias')}kernel"]
        limit = math.prod(kernel.shape[:-1]) ** -0.5
        for values in (found[name], kernel):
            assert 0 < float(jnp.abs(values).max()) <= limit
