"""VGG16, AlexNet, DINOv2 and DINOv3-ConvNeXt against PyTorch, through the real converter.

Small widths and random weights; every returned feature map at the sizes that training uses.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import Dinov2Config, Dinov2Model, DINOv3ConvNextConfig, DINOv3ConvNextModel

from conversion.parity.arrays import relative_error, to_nchw, to_nhwc
from conversion.parity.random_checkpoints import enliven
from conversion.perceptual import convert_perceptual
from omgsr_jax import perceptual
from omgsr_jax.models.features import IMAGENET_MEAN, IMAGENET_STD
from omgsr_jax.models.vae import VAE, VAEConfig
from omgsr_jax.weights import fill, variables
from tests.helpers import images
from tests.torch_networks import alexnet, dinov2_original, dinov3_original_state, vgg16

_SIZES = [
    (224, 224),
    pytest.param((518, 518), marks=pytest.mark.slow),
    pytest.param((512, 384), marks=pytest.mark.slow),
]
_VGG_WIDTHS = (8, 12, 16, 16, 16)
_ALEX_WIDTHS = (16, 24, 24, 16, 16)
_RELU = {"vgg": (3, 8, 15, 22, 29), "alexnet": (1, 4, 7, 9, 11)}
_DINOV2 = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 518}
_CONVNEXT = {
    "hidden_sizes": [16, 24, 32, 40],
    "depths": [1, 2, 2, 1],
    "layer_scale_init_value": 0.5,
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """All four in PyTorch, and the folder that they were converted to."""
    source = tmp_path_factory.mktemp("source")
    torch.manual_seed(0)
    theirs = {
        "vgg": vgg16(_VGG_WIDTHS),
        "alexnet": alexnet(_ALEX_WIDTHS),
        "dinov2": Dinov2Model(Dinov2Config(**_DINOV2)),
        "dinov3_convnext": DINOv3ConvNextModel(DINOv3ConvNextConfig(**_CONVNEXT)),
    }
    for module in theirs.values():
        enliven(module.eval())
        module.requires_grad_(False)
    torch.save(_prefixed("features", theirs["vgg"]), source / "vgg16-397923af.pth")
    torch.save(_prefixed("features", theirs["alexnet"]), source / "alexnet-owt-7be5be79.pth")
    theirs["dinov2"].save_pretrained(source / "dinov2-base")
    theirs["dinov3_convnext"].save_pretrained(source / "dinov3-convnext-large")
    out = source / "converted"
    convert_perceptual(source, out, allow_pickle=True)
    return theirs, out


def _prefixed(prefix, module):
    return {f"{prefix}.{key}": tensor for key, tensor in module.state_dict().items()}


def _normalized(x):
    return (to_nchw(x) * 0.5 + 0.5 - torch.tensor(IMAGENET_MEAN).view(-1, 1, 1)) / torch.tensor(
        IMAGENET_STD
    ).view(-1, 1, 1)


def _reference(name, module, x):
    """The feature maps of a PyTorch network, b h w c."""
    x = _normalized(x)
    if name in _RELU:
        maps = []
        for i, layer in enumerate(module):
            x = layer(x)
            maps += [x] if i in _RELU[name] else []
        return [to_nhwc(m) for m in maps]
    hidden = module(x, output_hidden_states=True).hidden_states
    if name == "dinov3_convnext":
        return [to_nhwc(m) for m in hidden[1:]]
    h, w = x.shape[2] // 14, x.shape[3] // 14
    patches = [module.layernorm(tokens)[:, 1:] for tokens in hidden[1:]]
    return [p.reshape(len(x), h, w, -1).numpy() for p in patches]


def _features(out, name, x, **options):
    model = getattr(perceptual.read(out, [name], **options), name)
    graph, state = nnx.split(model)
    return jax.jit(lambda state, x: nnx.merge(graph, state).features(x))(state, jnp.asarray(x))


@pytest.mark.parametrize("size", _SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", ["vgg", "alexnet", "dinov2", "dinov3_convnext"])
def test_every_feature_map_agrees_with_pytorch(networks, name, size):
    theirs, out = networks
    x = images(1, 1, *size, 3)
    expected = _reference(name, theirs[name], x)
    ours = _features(out, name, x)
    assert len(ours) == len(expected)
    errors = [relative_error(a, b) for a, b in zip(ours, expected, strict=True)]
    print(f"\n{name} {size[0]}x{size[1]}: {max(errors):.1e}")
    assert max(errors) <= 1e-5, f"relative errors by level: {errors}"


@pytest.mark.parametrize("name", ["vgg", "alexnet", "dinov2", "dinov3_convnext"])
def test_gradients_with_respect_to_the_image_agree_with_pytorch(networks, name):
    theirs, out = networks
    x = images(2, 1, 70, 84, 3)
    given = torch.from_numpy(x).requires_grad_()
    with torch.enable_grad():
        y = given.permute(0, 3, 1, 2) * 0.5 + 0.5
        y = (y - torch.tensor(IMAGENET_MEAN).view(-1, 1, 1)) / torch.tensor(IMAGENET_STD).view(
            -1, 1, 1
        )
        if name in _RELU:
            last = theirs[name][: _RELU[name][-1] + 1](y)
        elif name == "dinov2":
            last = theirs[name](y).last_hidden_state[:, 1:]
        else:
            last = theirs[name](y, output_hidden_states=True).hidden_states[-1]
        last.square().sum().backward()
    model = getattr(perceptual.read(out, [name]), name)
    graph, state = nnx.split(model)

    @jax.jit
    def gradient(state, x):
        return jax.grad(lambda x: jnp.square(nnx.merge(graph, state).features(x)[-1]).sum())(x)

    ours = gradient(state, jnp.asarray(x))
    assert relative_error(ours, given.grad.numpy()) <= 1e-5


def test_recomputing_activations_changes_nothing(networks):
    _, out = networks
    x = images(3, 1, 56, 56, 3)
    for name in ("dinov2", "dinov3_convnext"):
        plain, again = _features(out, name, x), _features(out, name, x, remat=True)
        for a, b in zip(plain, again, strict=True):
            np.testing.assert_array_equal(a, b)


def test_bf16_backbones_put_out_bf16_near_fp32(networks):
    _, out = networks
    x = images(4, 1, 56, 56, 3)
    for name in ("dinov2", "dinov3_convnext"):
        exact = _features(out, name, x)[-1]
        rounded = _features(out, name, x, precision="bf16")[-1]
        assert rounded.dtype == jnp.bfloat16
        assert relative_error(rounded.astype(jnp.float32), exact) <= 0.05


def test_published_quirk_shifts_dinov2s_input_from_imagenets_mean_to_clips(networks):
    theirs, out = networks
    x = images(5, 1, 70, 70, 3)
    clip = np.array([0.48145466, 0.4578275, 0.40821073])
    moved = (x - 2 * (clip - np.array(IMAGENET_MEAN))).astype(np.float32)
    expected = _reference("dinov2", theirs["dinov2"], moved)
    config = perceptual.as_published(perceptual.configs(out, ["dinov2"]))["dinov2"]
    weights = variables(perceptual.read(out, ["dinov2"]).dinov2)
    model = fill(
        perceptual.abstract("dinov2", config), {name: leaf[...] for name, leaf in weights.items()}
    )
    ours = jax.jit(lambda x: model.features(x))(x)
    assert relative_error(ours[-1], expected[-1]) <= 1e-5
    assert relative_error(_features(out, "dinov2", x)[-1], expected[-1]) > 1e-4


@pytest.mark.parametrize("size", [(224, 224), (518, 518), (392, 280)], ids=str)
def test_original_dinov2_file_interpolates_positions_as_the_original(tmp_path, size):
    torch.manual_seed(1)
    theirs = dinov2_original(width=128, depth=2, image_size=518)
    torch.save(theirs.state_dict(), tmp_path / "dinov2_vits14_pretrain.pth")
    convert_perceptual(tmp_path, tmp_path / "out", allow_pickle=True)
    x = images(6, 1, *size, 3)
    with torch.no_grad():
        expected = [m.numpy() for m in theirs(_normalized(x))]
    ours = _features(tmp_path / "out", "dinov2", x)
    errors = [relative_error(a, b.reshape(a.shape)) for a, b in zip(ours, expected, strict=True)]
    assert max(errors) <= 1e-5


def test_original_dinov3_file_is_the_same_network_as_the_transformers_folder(networks, tmp_path):
    theirs, out = networks
    state = dinov3_original_state(theirs["dinov3_convnext"].state_dict())
    torch.save(state, tmp_path / "dinov3_convnext_large_pretrain_lvd1689m-61fa432d.pth")
    convert_perceptual(tmp_path, tmp_path / "out", allow_pickle=True)
    x = images(7, 1, 64, 64, 3)
    folder, file = (_features(d, "dinov3_convnext", x) for d in (out, tmp_path / "out"))
    for a, b in zip(folder, file, strict=True):
        np.testing.assert_array_equal(a, b)


def test_vae_encoder_is_a_feature_backbone_too():
    config = VAEConfig(block_out_channels=(8, 16, 16), layers_per_block=1, norm_num_groups=4)
    graph, state = nnx.split(VAE(config, rngs=None).encoder)
    x = jax.ShapeDtypeStruct((2, 32, 48, 3), jnp.float32)
    maps = jax.eval_shape(lambda state, x: nnx.merge(graph, state).features(x), state, x)
    assert [m.shape for m in maps] == [
        (2, 16, 24, 8), (2, 8, 12, 16), (2, 8, 12, 16), (2, 8, 12, 16)
    ]  # fmt: skip
