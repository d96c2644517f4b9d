"""The GAN losses: their arithmetic, their augmentation, and who gets which gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from conversion.parity.arrays import relative_error, to_nchw
from omgsr_jax.losses import adversarial
from omgsr_jax.losses.adversarial import bce
from omgsr_jax.losses.augment import augment, sample
from omgsr_jax.losses.total import LossWeights, Networks, Restoration, total
from omgsr_jax.models.discriminator import (
    Discriminator,
    TokenHeadsConfig,
    UNetHeadsConfig,
    take_apart,
)
from omgsr_jax.models.features import Pixels
from omgsr_jax.models.spectral_norm import SpectralVector
from omgsr_jax.process import DDPM
from omgsr_jax.weights import fill, variables
from tests.helpers import drawn, images
from tests.losses import references

_KEY = jax.random.key(0)
generator_loss = jax.jit(adversarial.generator_loss, static_argnames="chunk")
discriminator_loss = jax.jit(adversarial.discriminator_loss, static_argnames="chunk")
relativistic_generator_loss = jax.jit(adversarial.relativistic_generator_loss)
relativistic_discriminator_loss = jax.jit(adversarial.relativistic_discriminator_loss)
v1_loss, v2_loss = (
    jax.jit(loss, static_argnames="chunk")
    for loss in (adversarial.v1_discriminator_loss, adversarial.v2_discriminator_loss)
)


class _Backbone(nnx.Module):
    """Three strided looks at the image through one frozen weight."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.zeros((3, 6)))

    def features(self, x):
        x = jnp.tanh(x @ self.kernel[...])
        return [x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2]]


@pytest.fixture(scope="module")
def parts():
    config = TokenHeadsConfig(6, 4, levels=(0, 1, 2), image_size=None)
    discriminator = Discriminator(_Backbone(), config, rngs=None)
    rng = np.random.default_rng(0)
    drawn = {
        name: rng.standard_normal(leaf.shape).astype(np.float32)
        for name, leaf in variables(discriminator).items()
    }
    return take_apart(fill(discriminator, jax.tree.map(jnp.asarray, drawn)))


@pytest.fixture(scope="module")
def pair():
    return jnp.asarray(images(1, 2, 28, 28, 3)), jnp.asarray(images(2, 2, 28, 28, 3))


def _largest(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_bce_is_torchs_summed_over_levels_and_averaged_within_each():
    rng = np.random.default_rng(0)
    levels = [8 * rng.standard_normal((2, n, n, 1)).astype(np.float32) for n in (9, 5, 37)]
    for label in (0.8, 0.0):
        expected = sum(
            torch.nn.functional.binary_cross_entropy_with_logits(
                torch.from_numpy(z), torch.full(z.shape, label)
            )
            for z in levels
        )
        assert float(bce(levels, label)) == pytest.approx(expected.item(), rel=1e-5)


def test_losses_are_the_labels_of_the_paper_on_what_the_discriminator_says(parts, pair):
    x_h, x_p = pair
    keys = jax.random.split(_KEY, 3)

    @jax.jit
    def expected(parts):
        discriminator = parts.merge()

        def logits(x, key):
            return discriminator(augment(x, sample(key, *x.shape[:3])), train=True)

        # In this order: every forward advances the power iteration.
        by_generator = bce(logits(x_p, keys[0]), 0.8)
        return by_generator, bce(logits(x_h, keys[1]), 0.8) + bce(logits(x_p, keys[2]), 0.0)

    loss_g, spectral = generator_loss(parts, x_p, _KEY)
    loss_d, _ = discriminator_loss(parts._replace(spectral=spectral), x_h, x_p, _KEY)
    np.testing.assert_allclose((loss_g, loss_d), expected(parts), rtol=1e-5)


def test_generator_step_reaches_the_generator_and_no_weight_of_the_discriminator(parts, pair):
    """The generator is one number here. Of the discriminator, only power iterations come out."""
    _, x_p = pair
    before = jax.tree.map(np.asarray, parts[1:])
    (_, spectral), gradient = jax.value_and_grad(
        lambda scale: adversarial.generator_loss(parts, scale * x_p, _KEY), has_aux=True
    )(1.0)
    assert abs(float(gradient)) > 0
    jax.tree.map(np.testing.assert_array_equal, before, parts[1:])
    assert {type(leaf) for _, leaf in spectral.flat_state()} == {SpectralVector}
    assert _largest(jax.tree.map(jnp.subtract, spectral, parts.spectral)) > 0


def test_discriminator_step_reaches_its_heads_but_not_the_generator_nor_the_backbone(parts, pair):
    x_h, x_p = pair
    for of_pair in (discriminator_loss, v1_loss):

        def loss(heads, scale, backbone, of_pair=of_pair):
            return of_pair(parts._replace(heads=heads), x_h, scale * x_p, _KEY)[0]

        by_heads, by_scale = jax.grad(loss, argnums=(0, 1))(parts.heads, 1.0, parts.backbone)
        assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(by_heads))
        assert float(by_scale) == 0.0
    assert not set(dict(parts.heads.flat_state())) & set(dict(parts.backbone.flat_state()))


def test_published_quirk_adds_the_gradient_that_the_generator_step_left_in_the_heads(parts, pair):
    x_h, x_p = pair
    (_, spectral), leaked = jax.value_and_grad(
        lambda heads: generator_loss(parts._replace(heads=heads), x_p, _KEY), has_aux=True
    )(parts.heads)

    def gradient(of_pair):
        def loss(heads):
            return of_pair(parts._replace(heads=heads, spectral=spectral), x_h, x_p, _KEY)[0]

        return jax.grad(loss)(parts.heads)

    correct, published = gradient(discriminator_loss), gradient(v1_loss)
    assert _largest(leaked) > 1e-3
    for clean, dirty, left in zip(
        *(jax.tree.leaves(tree) for tree in (correct, published, leaked)), strict=True
    ):
        np.testing.assert_allclose(dirty, clean + left, rtol=1e-4, atol=1e-6)


def test_v2_looks_at_the_fake_first(parts, pair):
    """In training PyTorch's spectral norm advances at every look, so at the start, where it is far
    from its end, the order counts."""
    x_h, x_p = pair
    of_generator, of_real, of_fake = jax.random.split(_KEY, 3)
    real, fake = (x_h, of_real, 0.8), (x_p, of_fake, 0.0)

    @jax.jit
    def expected(parts):
        found = []
        for looks in ((real, fake), (fake, real)):
            discriminator, total = parts.merge(), 0.0
            for number, (x, key, label) in enumerate(((x_p, of_generator, 0.8), *looks)):
                augmented = augment(x, sample(key, *x.shape[:3]))
                total += bce(discriminator(augmented, train=number > 0), label)
            found.append(total)
        return found

    v1, v2 = (loss(parts, x_h, x_p, _KEY)[0] for loss in (v1_loss, v2_loss))
    np.testing.assert_allclose((v1, v2), expected(parts), rtol=1e-5)
    assert abs(float(v1 / v2 - 1)) > 1e-3


def test_oc_gan_judges_every_window_by_itself(parts):
    x_p = jnp.asarray(images(3, 1, 40, 40, 3))
    windows = jnp.concatenate(
        [x_p[:, top : top + 28, left : left + 28] for top in (0, 12) for left in (0, 12)]
    )
    chunked, _ = generator_loss(parts, x_p, _KEY, chunk=28)
    np.testing.assert_allclose(chunked, generator_loss(parts, windows, _KEY)[0], rtol=1e-6)
    whole, _ = generator_loss(parts, x_p, _KEY, chunk=40)
    np.testing.assert_array_equal(whole, generator_loss(parts, x_p, _KEY)[0])


@pytest.mark.parametrize("size", [(24, 24), (17, 26)], ids=str)
def test_augmentation_follows_the_published_rules(size):
    x = images(4, 6, *size, 3)
    drawn = sample(jax.random.key(3), 6, *size)
    given = to_nchw(x).double().requires_grad_()
    expected = references.augmented(given, drawn)
    weight = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    (expected * to_nchw(weight).double()).sum().backward()
    ours, pull_back = jax.vjp(lambda x: augment(x, drawn), jnp.asarray(x))
    assert relative_error(ours, expected.detach().permute(0, 2, 3, 1).numpy()) <= 1e-5
    (gradient,) = pull_back(jnp.asarray(weight))
    assert relative_error(gradient, given.grad.permute(0, 2, 3, 1).numpy()) <= 1e-5


@pytest.mark.parametrize(("h", "w"), [(24, 18), (17, 26)])
def test_augmentation_is_drawn_from_the_published_ranges(h, w):
    drawn = jax.tree.map(np.asarray, sample(jax.random.key(0), 20_000, h, w))
    for values, low, high in (
        (drawn.brightness, -0.5, 0.5),
        (drawn.saturation, 0.0, 2.0),
        (drawn.contrast, 0.5, 1.5),
    ):
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() < high
    for axis, length in enumerate((h, w)):
        shift, cut = int(length * 0.125 + 0.5), int(length * 0.5 + 0.5)
        assert set(drawn.shift[:, axis]) == set(range(-shift, shift + 1))
        assert set(drawn.hole[:, axis]) == set(range(length + 1 - cut % 2))


def test_every_look_at_the_discriminator_is_augmented_differently_and_repeatably(parts, pair):
    _, x_p = pair
    same = [float(generator_loss(parts, x_p, key)[0]) for key in (_KEY, _KEY, jax.random.key(9))]
    assert same[0] == same[1] != same[2]
    drawn = [sample(key, 2, 28, 28) for key in jax.random.split(_KEY, 3)]
    assert len({float(d.brightness[0]) for d in drawn}) == 3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["fp32", "bf16"])
def test_gradients_are_finite_on_flat_images(parts, dtype):
    graph, state = parts.graph, parts[1:]
    state = (*state[:2], jax.tree.map(lambda leaf: leaf.astype(dtype), state[2]))

    @jax.jit
    def gradients(state, x_h, x_p):
        def loss(heads, x_p):
            given = type(parts)(graph, heads, *state[1:])
            return sum(
                (generator_loss(given, x_p, _KEY)[0],
                 v1_loss(given, x_h, x_p, _KEY)[0])
            )  # fmt: skip

        return jax.grad(loss, argnums=(0, 1))(state[0], x_p)

    y = images(5, 1, 28, 28, 3)
    saturated = np.where(y > 0.1, 1.0, np.where(y < -0.1, -1.0, y))
    for x in (np.full_like(y, 0.3), y, np.full_like(y, -1.0), saturated):
        for found in jax.tree.leaves(
            gradients(state, jnp.asarray(y, dtype), jnp.asarray(x, dtype))
        ):
            assert np.isfinite(np.asarray(found, np.float32)).all()


def test_total_is_the_weighted_sum_and_names_its_parts():
    x_p, x_h, z_l, z_h, eps = (jnp.asarray(images(seed, 1, 8, 8, 3)) for seed in range(5))
    restoration = Restoration(x_p, x_h, z_l, z_h, eps)
    weights = LossWeights(ldr=5.0, mse=2.0, l1=0.5, gan=0.5)
    value, parts_ = total(
        weights, Networks(), restoration, process=DDPM(), t_m=195, gan=jnp.asarray(3.0)
    )
    assert set(parts_) == {"ldr", "mse", "l1", "gan"}
    expected = 5 * parts_["ldr"] + 2 * parts_["mse"] + 0.5 * parts_["l1"] + 0.5 * 3.0
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(parts_["mse"], np.mean((x_p - x_h) ** 2), rtol=1e-5)


def test_a_loss_without_weight_costs_no_computation_and_needs_no_network():
    shape = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    restoration = Restoration(*[shape] * 5)

    def program(weights):
        def run(restoration):
            return total(weights, Networks(), restoration, process=DDPM(), t_m=195)[0]

        return jax.make_jaxpr(run)(restoration)

    assert len(program(LossWeights()).eqns) == 0
    alone, both = program(LossWeights(mse=2.0)), program(LossWeights(mse=2.0, l1=0.5))
    assert 0 < len(alone.eqns) < len(both.eqns)
    assert LossWeights(ldr=5.0, mse=2.0, gan=0.5).networks == set()
    assert LossWeights(oc_lpips=5.0, dv3cd=5.0).networks == {"vgg", "lpips_vgg", "dinov3_convnext"}


def test_a_weight_without_its_network_is_an_error_that_names_it():
    x = jnp.zeros((1, 8, 8, 3))
    with pytest.raises(ValueError, match=r"lpips_vgg.*gan"):
        total(
            LossWeights(oc_lpips=5.0, gan=0.5),
            Networks(),
            Restoration(x, x, x, x, x),
            process=DDPM(),
            t_m=195,
        )


@pytest.fixture(scope="module")
def unet():
    config = UNetHeadsConfig(width=4)
    return take_apart(drawn(Discriminator(Pixels(), config, rngs=None)))


def test_relativistic_losses_compare_an_image_with_its_own_original(unet):
    x_h, x_p = jnp.asarray(images(1, 2, 16, 24, 3)), jnp.asarray(images(2, 2, 16, 24, 3))
    (logits,) = unet.merge()(jnp.concatenate([x_h, x_p]), train=True)
    assert logits.shape == (4, 16, 24, 1)
    real, fake = np.split(np.asarray(logits), 2)
    of_generator, _ = relativistic_generator_loss(unet, x_h, x_p)
    of_discriminator, _ = relativistic_discriminator_loss(unet, x_h, x_p)
    np.testing.assert_allclose(of_generator, np.log1p(np.exp(real - fake)).mean(), rtol=1e-5)
    np.testing.assert_allclose(of_discriminator, np.log1p(np.exp(fake - real)).mean(), rtol=1e-5)
    same, _ = relativistic_generator_loss(unet, x_h, x_h)
    np.testing.assert_allclose(same, np.log(2), rtol=1e-6)


def test_relativistic_discriminator_step_leaves_the_images_alone(unet):
    x_h, x_p = jnp.asarray(images(1, 2, 16, 24, 3)), jnp.asarray(images(2, 2, 16, 24, 3))
    of_images = jax.grad(lambda x: relativistic_discriminator_loss(unet, x_h, x)[0])(x_p)
    assert _largest(of_images) == 0
    towards = jax.grad(lambda x: relativistic_generator_loss(unet, x_h, x)[0])(x_p)
    assert _largest(towards) > 0
