"""Spectral norm and the discriminators' heads against PyTorch builds of the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn
from torch.nn.utils import spectral_norm

from conversion.parity.arrays import relative_error, to_nchw
from omgsr_jax.models.discriminator import (
    Discriminator,
    TokenHeads,
    TokenHeadsConfig,
    TowerHeads,
    TowerHeadsConfig,
    take_apart,
)
from omgsr_jax.models.layers import Conv, Linear
from omgsr_jax.models.spectral_norm import SpectralNorm, SpectralVector
from omgsr_jax.weights import fill, variables

_CHANNELS = (8, 12, 16)


class _Blur(nn.Module):
    def __init__(self, stride=2, padding=1):
        super().__init__()
        self.stride, self.padding = stride, padding

    def forward(self, x):
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        kernel = torch.outer(taps, taps).repeat(x.shape[1], 1, 1, 1)
        return nn.functional.conv2d(
            x, kernel, stride=self.stride, padding=self.padding, groups=x.shape[1]
        )


def _torch_token_heads(c, width):
    def level():
        return nn.Sequential(
            _Blur(stride=1, padding=2),
            spectral_norm(nn.Conv2d(c, width, 3, stride=2)),
            nn.LeakyReLU(0.2),
            _Blur(stride=1),
            spectral_norm(nn.Conv2d(width, 1, 1, stride=2)),
        )

    heads = nn.Module()
    token = nn.Sequential(spectral_norm(nn.Linear(c, width)), nn.LeakyReLU(0.2))
    heads.decoder = nn.ModuleList([level(), level(), token])
    heads.out = spectral_norm(nn.Linear(width, 1))

    def forward(maps):
        spatial = [decoder(x) for decoder, x in zip(heads.decoder[:2], maps[:2], strict=True)]
        tokens = maps[2].flatten(2).transpose(1, 2)  # b n c
        return [*spatial, heads.out(heads.decoder[2](tokens))]

    return heads, forward


def _torch_tower_heads(channels, layout):
    ratios_and_strides = {
        512: [
            ([0.5, 1.0, 1.0], [2, 2, 2]),
            ([0.5, 0.5, 1.0], [1, 2, 2]),
            ([0.5, 0.5, 0.5], [1, 1, 2]),
        ],
        1024: [
            ([0.5, 1.0, 1.0, 1.0], [1, 2, 2, 2]),
            ([0.5, 0.5, 1.0, 1.0], [1, 1, 2, 2]),
            ([0.5, 0.5, 0.5, 1.0], [1, 1, 1, 2]),
        ],
    }[layout]
    heads = nn.Module()
    heads.decoders = nn.ModuleList()
    for c, (ratios, strides) in zip(channels, ratios_and_strides, strict=True):
        layers = []
        for ratio, stride in zip(ratios, strides, strict=True):
            out = int(c * ratio)
            conv = spectral_norm(nn.Conv2d(c, out, 3, stride=stride, padding=1))
            layers += [_Blur(), conv, nn.LeakyReLU(0.2)]
            c = out
        layers += [_Blur(), spectral_norm(nn.Conv2d(c, 1, 1))]
        heads.decoders.append(nn.Sequential(*layers))

    def forward(maps):
        return [decoder(x) for decoder, x in zip(heads.decoders, maps, strict=True)]

    return heads, forward


def _filled(ours, theirs):
    """`ours` (with shapes in place of arrays) with the weights and vectors of PyTorch's."""
    params = {}
    for name, layer in theirs.named_modules():
        if hasattr(layer, "weight_u"):
            v = layer.weight_v.reshape(layer.weight_orig.shape[1:])
            v = v.permute(1, 2, 0) if v.ndim == 3 else v  # I H W -> H W I
            params[f"{name}.u"], params[f"{name}.v"] = layer.weight_u.numpy(), v.reshape(-1).numpy()
            params[f"{name}.kernel"] = _kernel(layer.weight_orig)
            params[f"{name}.bias"] = layer.bias.detach().numpy()
    # PyTorch updates its vectors in place: ours must not share their memory.
    return fill(ours, {name: jnp.array(array) for name, array in params.items()})


def _kernel(weight):
    weight = weight.detach().numpy()
    return weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0)


def _heads(kind):
    """Ours and PyTorch's, with the same weights, and feature maps for them (b h w c)."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    if kind == "v1":
        theirs, forward = _torch_token_heads(12, 8)
        ours = TokenHeads(TokenHeadsConfig(12, 8), rngs=None)
        shapes = [(2, 37, 37, 12)] * 3
    else:
        theirs, forward = _torch_tower_heads(_CHANNELS, kind)
        ours = TowerHeads(TowerHeadsConfig(_CHANNELS, layout=kind), rngs=None)
        shapes = [(1, kind // n, kind // n, c) for n, c in zip((4, 8, 16), _CHANNELS, strict=True)]
    ours = _filled(ours, theirs)
    maps = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return ours, theirs, forward, maps


def _same_order(theirs, ours):
    """Torch's logits (b 1 h w, or b n 1) in the shape of ours (b h w 1)."""
    theirs = theirs.movedim(1, -1) if theirs.ndim == 4 else theirs
    return theirs.detach().numpy().reshape(ours.shape)


@pytest.mark.parametrize("kind", ["v1", 512, pytest.param(1024, marks=pytest.mark.slow)])
def test_heads_agree_with_pytorch_forward_and_backward(kind):
    ours, theirs, forward, maps = _heads(kind)
    graph, params, spectral = nnx.split(ours, nnx.Param, SpectralVector)

    @jax.jit
    def run(params, spectral, maps):
        def loss(params, maps):
            heads = nnx.merge(graph, params, spectral, copy=True)
            logits = heads(maps, train=True)
            return sum(jnp.square(z).sum() for z in logits), logits

        (_, logits), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, maps)
        return logits, grads

    logits, (grads, map_grads) = run(params, spectral, maps)
    given = [to_nchw(m).requires_grad_() for m in maps]
    expected = forward(given)
    sum(z.square().sum() for z in expected).backward()

    errors = {
        "logits": [
            relative_error(z, _same_order(reference, z))
            for z, reference in zip(logits, expected, strict=True)
        ],
        "by the maps": [
            relative_error(gradient, reference.grad.permute(0, 2, 3, 1).numpy())
            for gradient, reference in zip(map_grads, given, strict=True)
        ],
    }
    weights = dict(theirs.named_parameters())
    pairs = []
    for path, gradient in grads.flat_state():
        name = ".".join(str(part) for part in path if part != "base_layer")
        reference = weights.pop(name.replace("kernel", "weight_orig")).grad
        reference = _kernel(reference) if name.endswith("kernel") else reference.numpy()
        pairs.append((np.ravel(gradient[...]), np.ravel(reference)))
    assert not weights
    errors["by the weights"] = [relative_error(*map(np.concatenate, zip(*pairs, strict=True)))]
    print(f"\n{kind}: " + ", ".join(f"{what} {max(found):.1e}" for what, found in errors.items()))
    assert max(max(found) for found in errors.values()) <= 1e-5


@pytest.mark.parametrize("kind", ["convolution", "linear"])
def test_spectral_norm_follows_pytorch_for_ten_forwards_and_then_stands_still(kind):
    torch.manual_seed(1)
    if kind == "linear":
        theirs = spectral_norm(nn.Linear(24, 10))
        ours = SpectralNorm(Linear(24, 10, rngs=None), rngs=None)
        x = np.random.default_rng(0).standard_normal((3, 24)).astype(np.float32)
        given = torch.from_numpy(x)
    else:
        theirs = spectral_norm(nn.Conv2d(6, 10, 3, padding=1))
        ours = SpectralNorm(Conv(6, 10, 3, padding=1, rngs=None), rngs=None)
        x = np.random.default_rng(0).standard_normal((3, 5, 7, 6)).astype(np.float32)
        given = to_nchw(x)
    ours = _filled(nnx.List([ours]), nn.Sequential(theirs))[0]
    graph, params, spectral = nnx.split(ours, nnx.Param, SpectralVector)

    @jax.jit
    def forward(spectral):
        layer = nnx.merge(graph, params, spectral)
        y = layer(x, train=True)
        return y, layer.sigma(train=False), nnx.state(layer, SpectralVector)

    sigmas = []
    for _ in range(10):
        y, sigma, spectral = forward(spectral)
        expected = theirs(given)
        expected = expected.movedim(1, -1) if expected.ndim == 4 else expected
        weight = theirs.weight_orig.flatten(1)
        expected_sigma = theirs.weight_u @ weight @ theirs.weight_v
        assert abs(float(sigma) - expected_sigma.item()) <= 1e-5
        assert relative_error(y, expected.detach().numpy()) <= 1e-5
        sigmas.append(float(sigma))
    exact = float(torch.linalg.matrix_norm(theirs.weight_orig.detach().flatten(1), 2))
    assert abs(sigmas[-1] - exact) < abs(sigmas[0] - exact)

    layer = nnx.merge(graph, params, spectral)
    before = jax.tree.map(np.asarray, nnx.state(layer, SpectralVector))
    theirs.eval()
    expected = theirs(given)
    expected = expected.movedim(1, -1) if expected.ndim == 4 else expected
    for _ in range(2):
        assert relative_error(layer(x, train=False), expected.detach().numpy()) <= 1e-5
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(layer, SpectralVector))


class _Stages(nnx.Module):
    """A backbone of one weight, which notes what it was shown."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.ones((3, 8)))

    def features(self, x):
        x = x @ self.kernel[...]
        return [x[:, ::4, ::4], x[:, ::8, ::8], x[:, ::16, ::16]]


def test_a_discriminator_comes_apart_into_heads_vectors_and_a_frozen_backbone():
    discriminator = Discriminator(_Stages(), TowerHeadsConfig((8, 8, 8)), rngs=None)
    rng = np.random.default_rng(0)
    drawn = {
        name: jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32)
        for name, leaf in variables(discriminator).items()
    }
    discriminator = fill(discriminator, drawn)
    parts = take_apart(discriminator)
    assert {path[0] for path, _ in parts.heads.flat_state()} == {"heads"}
    assert {type(leaf) for _, leaf in parts.spectral.flat_state()} == {SpectralVector}
    assert [path for path, _ in parts.backbone.flat_state()] == [("backbone", "kernel")]
    x = jnp.ones((1, 256, 256, 3))
    for z, again in zip(discriminator(x, train=False), parts.merge()(x, train=False), strict=True):
        np.testing.assert_array_equal(z, again)


def test_images_of_another_size_are_resized_by_area_for_a_backbone_with_its_own():
    class Watching(nnx.Module):
        def features(self, x):
            seen.append(x)
            return [x] * 3

    seen = []
    config = TokenHeadsConfig(3, 4, image_size=37, levels=(0, 1, 2))
    discriminator = Discriminator(Watching(), config, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((1, 40, 30, 3)).astype(np.float32)
    discriminator(jnp.asarray(x), train=False)
    expected = nn.functional.interpolate(to_nchw(x), size=(37, 37), mode="area")
    np.testing.assert_allclose(seen[0], expected.permute(0, 2, 3, 1), atol=1e-6)
