"""nano's VAE: what its components keep, what its branch adds, and a step that changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omgsr_jax import assets
from omgsr_jax.data import read_image
from omgsr_jax.generator import OMGSR, OMGSRConfig
from omgsr_jax.inference import strips
from omgsr_jax.models.pixel_vae import PixelVAE, PixelVAEConfig, principal_components
from omgsr_jax.models.unet import UNetConfig
from omgsr_jax.process import DDPM, ScaledDDPM
from omgsr_jax.weights import fill, variables

_CHANNELS = PixelVAEConfig().latent_channels
_UNET = UNetConfig(in_channels=_CHANNELS, out_channels=_CHANNELS, block_out_channels=(8,),
                   layers_per_block=1, attention=(True,), heads=(2,), transformer_depth=(1,),
                   cross_attention_dim=8, norm_num_groups=4)  # fmt: skip


@pytest.fixture(scope="module")
def photos():
    """The bundled originals, b h w 3 in [-1, 1]."""
    originals = [assets.sample(name).hr for name in assets.SAMPLES]
    cut = [read_image(str(path))[:256, :256] for path in originals]
    return np.stack(cut).astype(np.float32) / 127.5 - 1


def _fitted(images, whitening=0.6, **changes):
    config = PixelVAEConfig(**changes)
    model = PixelVAE(config, rngs=nnx.Rngs(0))
    known = {name: leaf[...] for name, leaf in variables(model).items()}
    return fill(model, known | principal_components(images, config, whitening).weights())


def test_all_components_keep_the_whole_image(photos):
    vae = _fitted(photos, latent_channels=48)
    restored = vae.decode(vae.encode(photos).mode())
    np.testing.assert_allclose(restored, photos, atol=2e-5)


def test_24_components_keep_more_than_42_db_and_all_of_the_luma(photos):
    vae = _fitted(photos)
    error = (np.asarray(vae.decode(vae.encode(photos).mode())) - photos) / 2
    assert -10 * np.log10(np.square(error).mean()) > 42
    assert -10 * np.log10(np.square(error @ np.array([0.299, 0.587, 0.114])).mean()) > 55


def test_latents_have_unit_variance_and_whitening_evens_them_out(photos):
    deviations = []
    for whitening in (0.0, 0.6, 1.0):
        z = np.asarray(_fitted(photos, whitening).encode(photos).mode())  # b h w c
        assert np.square(z).mean() == pytest.approx(1, rel=1e-3)
        deviations.append(z.std((0, 1, 2)))
    plain, between, white = (d.max() / d.min() for d in deviations)
    assert plain > between > white == pytest.approx(1, rel=1e-2)


def test_a_new_branch_adds_nothing_and_learns(photos):
    vae = _fitted(photos)
    z = vae.encoder.components(photos)
    np.testing.assert_array_equal(vae.encode(photos).mode(), z)
    gradient = nnx.grad(lambda vae: jnp.square(vae.encode(photos).mode() - 1).mean())(vae)
    assert float(jnp.abs(gradient["encoder"]["branch"]["conv2"]["kernel"][...]).max()) > 0


def test_the_posterior_is_a_point(photos):
    posterior = _fitted(photos).encode(photos)
    sampled = posterior.sample(jax.random.key(0))
    np.testing.assert_allclose(sampled, posterior.mode(), atol=1e-5)


@pytest.mark.parametrize(
    ("process", "kept"), [(ScaledDDPM(), True), (DDPM(), False)], ids=["scaled", "printed"]
)
def test_a_prediction_of_nothing_changes_nothing_where_z_l_enters_scaled(photos, process, kept):
    config = OMGSRConfig(PixelVAEConfig(), _UNET, process, 200, {"context": (2, 8)})
    model = OMGSR(config, rngs=nnx.Rngs(0))
    out = model.backbone.conv_out
    out.kernel.set_value(jnp.zeros_like(out.kernel[...]))
    z_l = jax.random.normal(jax.random.key(1), (1, 8, 8, _CHANNELS))
    assert np.allclose(model.one_step(z_l), z_l, atol=1e-5) == kept


def test_on_a_canvas_it_is_what_it_is_by_itself(photos):
    """The box is smaller than the canvas; what lies outside of it must not be seen."""
    vae = _fitted(photos)
    conv = vae.encoder.branch.conv2
    conv.kernel.set_value(0.1 * jax.random.normal(jax.random.key(2), conv.kernel[...].shape))
    part = photos[:1, :64, :48]
    canvas = np.full((1, 128, 128, 3), 0.7, np.float32)
    canvas[:, :64, :48] = part
    on_canvas = strips.walk(vae, (128, 128), jnp.array([[64, 48]]), 0)
    mean = on_canvas.encode(jnp.asarray(canvas)).mode()
    expected = vae.encode(part).mode()
    np.testing.assert_allclose(mean[:, :16, :12], expected, atol=1e-5)
    image = on_canvas.decode(mean)
    np.testing.assert_allclose(image[:, :64, :48], vae.decode(expected), atol=1e-5)
