"""The stages that make a base from nothing: their losses, and what comes out."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from omgsr_jax import converted, timestep
from omgsr_jax.architectures import ARCHITECTURES
from omgsr_jax.data import DataConfig
from omgsr_jax.errors import InputError
from omgsr_jax.evaluation.fidelity import psnr
from omgsr_jax.generator import OMGSR
from omgsr_jax.losses.texture import texture
from omgsr_jax.models.vae import VAE, Posterior
from omgsr_jax.training import loop, pretrain, work_directory
from omgsr_jax.training.config import OptimizerConfig, RunConfig, ValidationConfig
from omgsr_jax.weights import fill, variables
from tests.helpers import relative_error

SMALLEST = ARCHITECTURES["smallest"]


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
        architecture="smallest",
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup=0, ema=0.9),
        data=DataConfig(sources=(str(photos),), resolution=16, batch_size=4, workers=0),
        validation=ValidationConfig(sources=(str(photos),), images=4, every=10),
        run=RunConfig(steps=10, log_every=5, save_every=10),
    )


class _KnownVAE:
    """Encodes to a known posterior and decodes to known images."""

    def __init__(self, mean, logvar, decoded):
        self.posterior = Posterior(mean, logvar)
        self.decoded = decoded

    def encode(self, images):
        return self.posterior

    def decode(self, z):
        return self.decoded


def test_autoencoding_weighs_pixels_edges_and_the_posterior():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (2, 2, 6, 6, 3)).astype(np.float32)
    mean, logvar = rng.standard_normal((2, 2, 3, 3, 4)).astype(np.float32)
    loss, terms = pretrain.autoencoding_loss(
        _KnownVAE(mean, logvar, y), x, jax.random.key(0), kl=0.1, edges=0.5
    )
    edges = sum(np.abs(np.diff(y - x, axis=axis)).mean() for axis in (1, 2))
    kl = (0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)).mean()
    np.testing.assert_allclose(terms["edges"], edges, rtol=1e-5)
    np.testing.assert_allclose(terms["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(loss, np.abs(y - x).mean() + 0.5 * edges + 0.1 * kl, rtol=1e-5)


def test_the_decoder_weighs_pixels_edges_and_textures():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (2, 2, 32, 32, 3)).astype(np.float32)
    still = np.zeros((2, 2, 2, 4), np.float32)
    key = jax.random.key(0)
    value, terms = jax.jit(
        lambda y: pretrain.texture_loss(_KnownVAE(still, still, y), x, key, edges=0.5, weight=0.3)
    )(y)
    edges = sum(np.abs(np.diff(y - x, axis=axis)).mean() for axis in (1, 2))
    between = jax.jit(texture)(y, x, jax.random.split(key)[1])
    np.testing.assert_allclose(terms["texture"], between, rtol=1e-5)
    expected = np.abs(y - x).mean() + 0.5 * edges + 0.3 * between
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_half_of_the_images_have_other_colours_and_the_same_structure():
    rng = np.random.default_rng(0)
    images = rng.uniform(-0.3, 0.3, (64, 4, 4, 3)).astype(np.float32)
    moved = np.asarray(jax.jit(pretrain.recoloured)(images, jax.random.key(0)))
    same = [np.array_equal(a, b) for a, b in zip(images, moved, strict=True)]
    assert 20 < sum(same) < 50  # and of the moved, a sixth has its channels in their old order
    np.testing.assert_allclose(moved.mean(-1), images.mean(-1), atol=1e-6)
    for image, other in zip(images[~np.array(same)], moved[~np.array(same)], strict=True):
        spread, other = (x - x.mean(-1, keepdims=True) for x in (image, other))
        strength = np.linalg.norm(other) / np.linalg.norm(spread)
        assert 0.5 <= strength <= 2
        orders = itertools.permutations(range(3))
        assert any(np.allclose(other, strength * spread[..., order], atol=1e-5) for order in orders)


def test_denoising_is_the_error_of_the_predicted_noise_and_leaves_the_vae_alone(config):
    base = pretrain.base_of(config, _random_vae())
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


def test_the_stages_learn_and_make_a_base_that_loads(config, tmp_path):
    vae_task = pretrain.vae_task(config, psnr)
    before = vae_task.validate(vae_task.state)[0]["psnr"]
    vae = _trained(vae_task, config, tmp_path / "vae")
    assert int(vae.step) == 10
    assert vae_task.validate(vae)[0]["psnr"] > before
    larger = dataclasses.replace(config, data=dataclasses.replace(config.data, resolution=40))
    textures = _trained(pretrain.decoder_task(larger, vae.ema, psnr), larger, tmp_path / "decoder")
    refined = pretrain.with_decoder(vae.ema, textures.ema)
    assert set(refined) == set(vae.ema)
    for name, array in refined.items():
        assert np.array_equal(array, vae.ema[name]) != name.startswith("decoder."), name

    base = pretrain.base_of(config, refined)
    latents = timestep.encoder(base.vae)(jnp.asarray(pretrain.fixed_images(config)))
    np.testing.assert_allclose(np.std(latents), 1, rtol=1e-4)

    prior = _trained(pretrain.prior_task(config, base), config, tmp_path / "prior")
    assert int(prior.step) == 10
    base.with_prior(prior.ema).write(tmp_path / "base", mid_timestep=77, process_size=64)
    card = converted.read_card(tmp_path / "base")
    assert (card.generator.mid_timestep, card.process_size, card.color) == (77, 64, "wavelet")
    assert card.generator.vae == base.generator.vae
    stored = converted.by_name_on_host(tmp_path / "base")
    np.testing.assert_array_equal(
        stored["vae.encoder.conv_in.kernel"], vae.ema["encoder.conv_in.kernel"]
    )
    np.testing.assert_array_equal(
        stored["vae.decoder.conv_in.kernel"], textures.ema["decoder.conv_in.kernel"]
    )
    np.testing.assert_array_equal(stored["backbone.conv_in.kernel"], prior.ema["conv_in.kernel"])


def test_young_averages_follow_the_weights(config):
    """After one step nine tenths of the average are new: 1 - (1 + 0) / (10 + 0)."""
    task = pretrain.vae_task(config, psnr)
    start = jax.device_get(task.state.weights)
    state, _ = task.step(task.state, dict(next(task.batches)))
    name = "decoder.conv_out.kernel"
    expected = 0.1 * start[name] + 0.9 * np.asarray(state.weights[name])
    assert relative_error(state.ema[name], expected) <= 1e-6


def test_textures_are_not_sought_in_images_without_room_for_them(config):
    with pytest.raises(InputError, match=r"34 px and more.* is 16"):
        pretrain.decoder_task(config, {}, psnr)


def test_unknown_architectures_are_named(config):
    with pytest.raises(InputError, match="no architecture 'huge', only sd, flux"):
        pretrain.vae_task(dataclasses.replace(config, architecture="huge"), psnr)


def _random_vae():
    shapes = variables(VAE(SMALLEST.vae, rngs=None))
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(leaf.shape).astype(np.float32) * 0.1
        for name, leaf in shapes.items()
    }


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
