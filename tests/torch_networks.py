"""Plain PyTorch builds of the perceptual networks, written for comparison."""

import re

import torch
from torch import nn
from torch.nn import functional


def vgg16(widths=(64, 128, 256, 512, 512)) -> nn.Sequential:
    """The layers of torchvision's vgg16().features, without the last pooling."""
    layers, c_in = [], 3
    for width, depth in zip(widths, (2, 2, 3, 3, 3), strict=True):
        layers += [nn.MaxPool2d(2)] if layers else []
        for _ in range(depth):
            layers += [nn.Conv2d(c_in, width, 3, padding=1), nn.ReLU()]
            c_in = width
    return _awake(nn.Sequential(*layers))


def alexnet(widths=(64, 192, 384, 256, 256)) -> nn.Sequential:
    """The layers of torchvision's alexnet().features, without the last pooling."""
    c1, c2, c3, c4, c5 = widths
    return _awake(
        nn.Sequential(
            nn.Conv2d(3, c1, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(),
            nn.Conv2d(c3, c4, 3, padding=1), nn.ReLU(),
            nn.Conv2d(c4, c5, 3, padding=1), nn.ReLU(),
        )
    )  # fmt: skip


def _awake(module: nn.Module) -> nn.Module:
    """He's initialisation: PyTorch's default lets activations fade away over 13 layers."""
    for layer in module:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return module


class _Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.qkv, self.proj, self.heads = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
            heads,
        )

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / (c // self.heads) ** 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


class _Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(width))

    def forward(self, x):
        return x * self.gamma


class _Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, width // 64)
        self.ls1, self.ls2 = _Scale(width), _Scale(width)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x)))))


class _PatchEmbed(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.proj = nn.Conv2d(3, width, 14, stride=14)


class _DINOv2(nn.Module):
    """The original's parameters and its interpolation of positions, by scale factor."""

    def __init__(self, width, depth, image_size):
        super().__init__()
        self.side = image_size // 14
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + self.side**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = _PatchEmbed(width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, h, w):
        if h == w == self.side:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, self.side, self.side, -1).permute(0, 3, 1, 2)
        factor = ((h + 0.1) / self.side, (w + 0.1) / self.side)
        grid = functional.interpolate(grid, scale_factor=factor, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], 1)

    def forward(self, x):
        """The normed patches after every block: b n c."""
        x = self.patch_embed.proj(x)
        h, w = x.shape[2:]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        x, maps = x + self.positions(h, w), []
        for block in self.blocks:
            x = block(x)
            maps.append(self.norm(x)[:, 1:])
        return maps


def dinov2_original(*, width: int, depth: int, image_size: int) -> nn.Module:
    return _DINOv2(width, depth, image_size)


def dinov3_original_state(state: dict) -> dict:
    """The state dict of transformers' DINOv3-ConvNeXt under the original's names."""
    renamed = {}
    for key, tensor in state.items():
        key = key.removeprefix("model.")
        key = re.sub(r"^stages\.(\d)\.downsample_layers\.", r"downsample_layers.\1.", key)
        key = re.sub(r"^stages\.(\d)\.layers\.", r"stages.\1.", key)
        key = key.replace("depthwise_conv", "dwconv").replace("layer_norm", "norm")
        renamed[key.replace("pointwise_conv", "pwconv")] = tensor
    renamed |= {f"norms.3.{leaf}": renamed[f"norm.{leaf}"] for leaf in ("weight", "bias")}
    return renamed
