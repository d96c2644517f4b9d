"""`quirks="published"` changes what is built: one place, nothing that is handed on."""

import jax.numpy as jnp
import pytest
from flax import nnx

from omgsr_jax.converted import ModelCard
from omgsr_jax.losses import adversarial
from omgsr_jax.models.features import CLIP_MEAN
from omgsr_jax.models.flux import Flux
from omgsr_jax.training.blueprint import Blueprint
from omgsr_jax.training.state import learning_rate
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
    assert told(draw("published")) == 504.0


def test_the_trained_models_description_is_the_same():
    plain, published = (
        ModelCard(draw(quirks).generator_config, 64, prompt="").to_json()
        for quirks in (None, "published")
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
        for quirks in (None, "published")
    )
    assert not plain.networks["lpips_vgg"].unit_range
    assert published.networks["lpips_vgg"].unit_range
    assert published.networks["dinov2"].config.mean == CLIP_MEAN
    assert plain.networks["dinov2"].config.mean != CLIP_MEAN
    assert plain.discriminator_loss is adversarial.discriminator_loss
    assert published.discriminator_loss is adversarial.published_discriminator_loss
    assert learning_rate(plain.config.optimizer, plain.config.run)(0) == 0
    first = learning_rate(published.config.optimizer, published.config.run)(0)
    assert first == published.config.optimizer.learning_rate
