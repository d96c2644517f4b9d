"""Small random networks for the losses, written as the files that the hub and pyiqa would give.

v1 looks through DINOv2 (whose width and patches its code counts on) and DISTS' VGG16; v2 through
DINOv3's ConvNeXt.
"""

from pathlib import Path
from typing import Any

from .. import random_checkpoints
from .checkout import Checkout

DINOV2, VGG, DISTS = "dinov2-base", "vgg16.safetensors", "dists/weights.safetensors"
CONVNEXT = "dinov3_convnext.safetensors"
CONVNEXT_SIZE: dict[str, Any] = {"depths": [1, 1, 2, 1], "dims": [16, 24, 32, 40]}
_SIZE = random_checkpoints.Preset(
    {}, {}, {}, {}, 0, 0,
    vgg=(8, 12, 16, 16, 16),
    dinov2={"hidden_size": 768, "num_hidden_layers": 3, "num_attention_heads": 12, "mlp_ratio": 1},
)  # fmt: skip


def write(folder: Path, checkout: Checkout, seed: int) -> None:
    if checkout.version == "v1":
        _write_v1(folder, seed)
    else:
        _write_convnext(folder, checkout, seed)


def _write_v1(folder: Path, seed: int) -> None:
    import torch
    from safetensors.torch import save_file

    random_checkpoints.write_perceptual(folder, _SIZE, seed=seed)
    channels = 3 + sum(_SIZE.vgg)
    weights = {name: 0.1 + 0.02 * torch.rand(1, channels, 1, 1) for name in ("alpha", "beta")}
    (folder / DISTS).parent.mkdir()
    save_file(weights, folder / DISTS)


def _write_convnext(folder: Path, checkout: Checkout, seed: int) -> None:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    network = checkout.convnext().ConvNeXt(**CONVNEXT_SIZE)
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.kaiming_normal_(weight)
        else:  # scales of norms and of branches, or biases
            is_scale = name.endswith(("weight", "gamma"))
            torch.nn.init.normal_(weight, mean=float(is_scale), std=0.05)
    folder.mkdir(parents=True)
    kept = {k: v for k, v in network.state_dict().items() if not k.startswith("norms.")}
    save_file(kept, folder / CONVNEXT)
