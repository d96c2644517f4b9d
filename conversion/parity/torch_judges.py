"""What the PyTorch loop looks through: a perceptual distance, and a discriminator's heads.

Either has `distance` (of two batches of images), `logits` (of one, a tensor per level) and `heads`,
whose layers have the names of ours. Images are b 3 h w, in [-1, 1].
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from omgsr_jax.losses.chunks import starts
from omgsr_jax.losses.lpips import WINDOW
from omgsr_jax.models.features import CLIP_MEAN, IMAGENET_MEAN, IMAGENET_STD
from omgsr_jax.training.config import TrainConfig

_VGG_DEPTHS = (2, 2, 3, 3, 3)
_SLOPE = 0.2


def make_judges(vae: Any, config: TrainConfig, perceptual: Path | None) -> Any:
    """What a config asks for; `perceptual` has the paper's networks before conversion."""
    if perceptual is None:
        return OwnEncoder(vae, config)
    return PaperNetworks(perceptual, config)


class OwnEncoder:
    """The frozen VAE's encoder, for models without a pre-trained network: a tower on each map."""

    def __init__(self, vae: Any, config: TrainConfig):
        import torch
        from torch import nn
        from torch.nn.utils import spectral_norm

        self.encoder = vae.encoder
        self.levels = config.discriminator.levels
        image = torch.zeros(1, 3, config.data.resolution, config.data.resolution)
        widths = [m.shape[1] for m in self._maps(image)]
        self.towers = nn.ModuleList(
            nn.Sequential(
                _blur(),
                spectral_norm(nn.Conv2d(widths[level], widths[level], 3, padding=1)),
                nn.LeakyReLU(_SLOPE),
                _blur(),
                spectral_norm(nn.Conv2d(widths[level], 1, 1)),
            )
            for level in self.levels
        )
        self.heads = nn.ModuleDict({"decoders": self.towers})

    @property
    def frozen(self) -> list[Any]:
        return []  # the VAE is moved by its owner

    def distance(self, x: Any, y: Any) -> Any:
        import torch

        levels = [
            _unit_difference(a, b).sum(1).mean()
            for a, b in zip(self._maps(x), self._maps(y), strict=True)
        ]
        return torch.stack(levels).mean()

    def logits(self, x: Any) -> list[Any]:
        maps = self._maps(x)
        return [tower(maps[n]) for n, tower in zip(self.levels, self.towers, strict=True)]

    def _maps(self, x: Any) -> list[Any]:
        """What each block of the encoder puts out."""
        x = self.encoder.conv_in(x)
        found = []
        for block in (*self.encoder.down_blocks, self.encoder.mid_block):
            x = block(x)
            found.append(x)
        return found


class PaperNetworks:
    """LPIPS through VGG16 in overlapping windows; DINOv2 with two spatial levels and a token level.

    `folder` holds them as `random_checkpoints.write_perceptual` writes them.
    """

    def __init__(self, folder: Path, config: TrainConfig):
        from safetensors.torch import load_file
        from torch import nn
        from transformers import Dinov2Model

        self.quirks = config.quirks
        self.levels = config.discriminator.levels
        self.image_size = config.discriminator.image_size or config.data.resolution
        self.vgg = vgg16(load_file(folder / "vgg16.safetensors"))
        lin = load_file(folder / "lpips" / "vgg.safetensors")
        self.lin = nn.ParameterList(lin[f"lin{i}.model.1.weight"] for i in range(len(lin)))
        self.dinov2 = Dinov2Model.from_pretrained(folder / "dinov2-base").eval()
        for network in self.frozen:
            network.requires_grad_(False)
        self.heads = _token_heads(self.dinov2.config.hidden_size, config.discriminator.width)

    @property
    def frozen(self) -> list[Any]:
        return [self.vgg, self.lin, self.dinov2]

    def distance(self, x: Any, y: Any) -> Any:
        if self.quirks:
            x, y = x * 0.5 + 0.5, y * 0.5 + 0.5
        total: Any = 0
        maps = zip(self.lin, self._vgg_maps(_windows(x)), self._vgg_maps(_windows(y)), strict=True)
        for weight, a, b in maps:
            total = total + (_unit_difference(a, b) * weight).sum(1).mean()
        return total

    def logits(self, x: Any) -> list[Any]:
        from torch.nn.functional import interpolate

        x = interpolate(x * 0.5 + 0.5, (self.image_size, self.image_size), mode="area")
        x = normalized(x, CLIP_MEAN if self.quirks else IMAGENET_MEAN)
        hidden = self.dinov2(x, output_hidden_states=True).hidden_states[1:]
        b, side = len(x), self.image_size // self.dinov2.config.patch_size
        *spatial, last = (self.dinov2.layernorm(hidden[level])[:, 1:] for level in self.levels)
        *towers, token = self.heads["decoder"]
        found = [
            tower(tokens.transpose(1, 2).reshape(b, -1, side, side))
            for tower, tokens in zip(towers, spatial, strict=True)
        ]
        return [*found, self.heads["out"](token(last))]

    def _vgg_maps(self, x: Any) -> list[Any]:
        """Before every pooling, and at the end."""
        from torch import nn

        x = normalized(x * 0.5 + 0.5, IMAGENET_MEAN)
        maps = []
        for layer in self.vgg:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
            x = layer(x)
        return [*maps, x]


def vgg16(tensors: dict[str, Any]) -> Any:
    """torchvision's vgg16().features up to the last pooling, as wide as its weights are."""
    from torch import nn

    layers: list[Any] = []
    for depth in _VGG_DEPTHS:
        layers += [nn.MaxPool2d(2)] if layers else []
        for _ in range(depth):
            c_out, c_in = tensors[f"features.{len(layers)}.weight"].shape[:2]
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()]
    vgg: Any = nn.Sequential(*layers)
    vgg.load_state_dict({key.removeprefix("features."): t for key, t in tensors.items()})
    return vgg


def _token_heads(c: int, width: int) -> Any:
    from torch import nn
    from torch.nn.utils import spectral_norm

    levels = [
        nn.Sequential(
            _blur(stride=1, padding=2),
            spectral_norm(nn.Conv2d(c, width, 3, stride=2)),
            nn.LeakyReLU(_SLOPE),
            _blur(stride=1),
            spectral_norm(nn.Conv2d(width, 1, 1, stride=2)),
        )
        for _ in range(2)
    ]
    token = nn.Sequential(spectral_norm(nn.Linear(c, width)), nn.LeakyReLU(_SLOPE))
    out = spectral_norm(nn.Linear(width, 1))
    return nn.ModuleDict({"decoder": nn.ModuleList([*levels, token]), "out": out})


def heads_of(heads: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The heads' weights and their power iterations' vectors, under our names."""
    weights, vectors = {}, {}
    for name, layer in heads.named_modules():
        if hasattr(layer, "weight_u"):
            key = f"heads.{name}"
            kernel, v = layer.weight_orig.detach(), layer.weight_v
            if kernel.ndim == 4:  # O I H W
                v = v.reshape(kernel.shape[1:]).permute(1, 2, 0).reshape(-1)
                kernel = kernel.permute(2, 3, 1, 0)
            else:
                kernel = kernel.T
            vectors[f"{key}.u"] = layer.weight_u.numpy().copy()
            vectors[f"{key}.v"] = v.numpy().copy()
            weights[f"{key}.kernel"] = kernel.numpy().copy()
            weights[f"{key}.bias"] = layer.bias.detach().numpy().copy()
    return weights, vectors


def _blur(stride: int = 2, padding: int = 1) -> Any:
    import torch
    from torch import nn

    class Blur(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
            self.register_buffer("kernel", torch.outer(taps, taps))

        def forward(self, x: Any) -> Any:
            c = x.shape[1]
            kernel = self.get_buffer("kernel").to(x.dtype).expand(c, 1, -1, -1)
            return nn.functional.conv2d(x, kernel, stride=stride, padding=padding, groups=c)

    return Blur()


def _windows(x: Any) -> Any:
    """As few windows as cover the images, spread evenly, of all images as one batch."""
    import torch

    _, _, h, w = x.shape
    corners = itertools.product(starts(h, WINDOW), starts(w, WINDOW))
    return torch.cat([x[:, :, top : top + WINDOW, left : left + WINDOW] for top, left in corners])


def normalized(x: Any, mean: tuple[float, float, float]) -> Any:
    """Images in [0, 1] as networks trained on ImageNet expect them."""
    import torch

    shift, scale = (torch.tensor(v).view(-1, 1, 1).to(x) for v in (mean, IMAGENET_STD))
    return (x - shift) / scale


def _unit_difference(a: Any, b: Any) -> Any:
    """(a / |a| - b / |b|)^2, where |.| runs over channels."""
    a, b = (m / (m.square().sum(1, keepdim=True).sqrt() + 1e-10) for m in (a, b))
    return (a - b).square()
