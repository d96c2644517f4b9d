"""DINOv2-B and DINOv3-ConvNeXt-L at their real sizes, with random weights: by hand, for minutes.

pytest -m slow tests/models/test_full_size_backbones.py -s
"""

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx
from transformers import Dinov2Config, Dinov2Model, DINOv3ConvNextConfig, DINOv3ConvNextModel

from conversion.parity.arrays import relative_error, to_nchw
from conversion.parity.random_checkpoints import enliven
from conversion.perceptual import convert_perceptual
from omgsr_jax import perceptual
from omgsr_jax.models.features import IMAGENET_MEAN, IMAGENET_STD
from tests.helpers import images

_NETWORKS = {
    "dinov2": (518, lambda: Dinov2Model(Dinov2Config(image_size=518))),
    "dinov3_convnext": (
        512,
        lambda: DINOv3ConvNextModel(
            DINOv3ConvNextConfig(
                hidden_sizes=[192, 384, 768, 1536],
                depths=[3, 3, 27, 3],
                layer_scale_init_value=0.1,
            )
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", _NETWORKS)
def test_full_size_network_agrees_with_transformers_at_every_feature_map(name, tmp_path):
    size, build = _NETWORKS[name]
    torch.manual_seed(0)
    theirs = build().eval()
    enliven(theirs)
    theirs.save_pretrained(tmp_path / name.replace("_", "-"))
    convert_perceptual(tmp_path, tmp_path / "out")
    x = images(1, 1, size, size, 3)

    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        hidden = theirs((to_nchw(x) * 0.5 + 0.5 - mean) / std, output_hidden_states=True)
    if name == "dinov2":
        expected = [theirs.layernorm(h)[:, 1:].detach().numpy() for h in hidden.hidden_states[1:]]
    else:
        expected = [h.permute(0, 2, 3, 1).numpy() for h in hidden.hidden_states[1:]]
    parameters = sum(p.numel() for p in theirs.parameters())
    del theirs, hidden

    graph, state = nnx.split(getattr(perceptual.read(tmp_path / "out", [name]), name))
    run = jax.jit(lambda state, x: nnx.merge(graph, state).features(x))
    ours = run(state, jnp.asarray(x))
    errors = [relative_error(a, b.reshape(a.shape)) for a, b in zip(ours, expected, strict=True)]
    print(f"\n{name}, {parameters / 1e6:.1f} M parameters, {size} px: relative errors by level")
    print(" ".join(f"{error:.1e}" for error in errors))
    assert max(errors) <= 1e-5
