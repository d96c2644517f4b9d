"""The stages that make a base from nothing: their losses, and what comes out."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from omgsr_jax import converted, timestep
from omgsr_jax.data import DataConfig, read_image
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR
from omgsr_jax.training import loop, pretrain, work_directory
from omgsr_jax.training.config import OptimizerConfig, RunConfig
from omgsr_jax.weights import fill
from tests.helpers import relative_error


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Smooth pictures, which a small network learns something about in a few steps."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        coarse.resize((48, 48), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def config(photos):
    return pretrain.PretrainConfig(
        architecture="smallest-pixels",
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup=0, ema=0.9),
        data=DataConfig(sources=(str(photos),), resolution=16, batch_size=4, workers=0),
        run=RunConfig(steps=10, log_every=5, save_every=10),
    )


@pytest.mark.slow
def test_denoising_is_the_error_of_the_predicted_noise_and_leaves_the_vae_alone(config):
    base = pretrain.base_of(config, pretrain.fitted_vae(config))
    generator = OMGSR(base.generator, rngs=None)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)
    key = jax.random.key(1)

    def loss(params):
        filled = fill(generator, params)
        return pretrain.denoising_loss(filled, images, key)[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(
        {name: jnp.asarray(array) for name, array in base.params.items()}
    )
    for name, array in gradient.items():
        if name.startswith("vae."):
            assert not np.any(array), name
    assert np.any(gradient["backbone.conv_in.kernel"])
    # Against Gaussian noise a silent network has an error of 1, a random one somewhat more.
    silent = base.params | {
        f"backbone.conv_out.{kind}": 0 * base.params[f"backbone.conv_out.{kind}"]
        for kind in ("kernel", "bias")
    }
    assert abs(float(loss(silent)) - 1) < 0.2
    assert float(value) != float(loss(silent))


def test_a_base_is_fitted_trained_and_loads(config, tmp_path):
    vae = pretrain.fitted_vae(config)
    assert not np.any(vae["encoder.branch.conv2.kernel"])
    base = pretrain.base_of(config, vae)
    pixels = np.stack([read_image(str(path)) for path in Path(config.data.sources[0]).iterdir()])
    images = pixels.astype(np.float32) / 127.5 - 1
    latents = timestep.encoder(base.vae)(images)
    np.testing.assert_allclose(np.mean(np.square(latents)), 1, rtol=1e-3)

    prior = _trained(pretrain.prior_task(config, base), config, tmp_path / "prior")
    assert int(prior.step) == 10
    base.with_prior(prior.ema).write(tmp_path / "base", mid_timestep=77, process_size=64)
    card = converted.read_card(tmp_path / "base")
    assert (card.generator.mid_timestep, card.process_size, card.color) == (77, 64, "wavelet")
    assert card.generator.vae == base.generator.vae
    stored = converted.by_name_on_host(tmp_path / "base")
    for name, array in vae.items():
        np.testing.assert_array_equal(stored[f"vae.{name}"], array)
    np.testing.assert_array_equal(stored["backbone.conv_in.kernel"], prior.ema["conv_in.kernel"])


def test_young_averages_follow_the_weights(config):
    """After one step nine tenths of the average are new: 1 - (1 + 0) / (10 + 0)."""
    task = pretrain.prior_task(config, pretrain.base_of(config, pretrain.fitted_vae(config)))
    start = jax.device_get(task.state.weights)
    state, _ = task.step(task.state, dict(next(task.batches)))
    name = "conv_out.kernel"
    expected = 0.1 * start[name] + 0.9 * np.asarray(state.weights[name])
    assert relative_error(state.ema[name], expected) <= 1e-6


def test_unknown_architectures_are_named(config):
    with pytest.raises(InputError, match="no architecture 'huge', only sd, flux"):
        pretrain.fitted_vae(dataclasses.replace(config, architecture="huge"))


def _trained(task, config, workdir):
    """The state after the loop, as its last checkpoint has it."""
    found = {}
    step = task.step

    def keep(state, batch):
        found["state"], metrics = step(state, batch)
        return found["state"], metrics

    task.step = keep
    with work_directory.opened(workdir, dataclasses.asdict(config), config.run) as saved:
        assert loop.train(task, config.run, saved, lambda step: False).finished
    return found["state"]
