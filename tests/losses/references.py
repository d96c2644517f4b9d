"""The losses in plain PyTorch, written from their papers for comparison. Images: b 3 h w."""

import numpy as np
import torch
from torch.nn import functional

from omgsr_jax.models.features import IMAGENET_MEAN, IMAGENET_STD

_TAPS = (3, 8, 15, 22, 29)


def normalized(x):
    """[-1, 1] to ImageNet's statistics."""
    mean, std = (
        torch.tensor(v, dtype=x.dtype).view(-1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (x * 0.5 + 0.5 - mean) / std


def l2_pool(x, stride):
    taps = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype)
    kernel = torch.outer(taps, taps).repeat(x.shape[1], 1, 1, 1)
    x = functional.conv2d(x**2, kernel, stride=stride, padding=1, groups=x.shape[1])
    return (x + 1e-12).sqrt()


def vgg_maps(vgg, x, *, l2=False):
    x, maps = normalized(x), []
    for i, layer in enumerate(vgg):
        x = l2_pool(x, 2) if l2 and isinstance(layer, torch.nn.MaxPool2d) else layer(x)
        maps += [x] if i in _TAPS else []
    return maps


def lpips(vgg, heads, x, y):
    distance = 0
    for weight, a, b in zip(heads, vgg_maps(vgg, x), vgg_maps(vgg, y), strict=True):
        a, b = (m / (m.square().sum(1, keepdim=True).sqrt() + 1e-10) for m in (a, b))
        distance = distance + ((a - b).square() * weight.view(-1, 1, 1)).sum(1).mean((1, 2))
    return distance


def similarity(maps_x, maps_y, alpha, beta):
    total, first = 0, 0
    for x, y in zip(maps_x, maps_y, strict=True):
        a, b = (w[first : first + x.shape[1]] for w in (alpha, beta))
        first += x.shape[1]
        x, y = x.flatten(2), y.flatten(2)
        mx, my = x.mean(2), y.mean(2)
        covariance = (x * y).mean(2) - mx * my
        texture = (2 * mx * my + 1e-6) / (mx**2 + my**2 + 1e-6)
        structure = (2 * covariance + 1e-6) / (
            x.var(2, correction=0) + y.var(2, correction=0) + 1e-6
        )
        total = total + (texture * a + structure * b).sum(1)
    return total


def dists(vgg, alpha, beta, x, y):
    maps_x, maps_y = ([i * 0.5 + 0.5, *vgg_maps(vgg, i, l2=True)] for i in (x, y))
    scale = alpha.sum() + beta.sum()
    return 1 - similarity(maps_x, maps_y, alpha / scale, beta / scale)


def sobel(x):
    """Edges of images in [0, 1], on three equal channels."""
    grey = (x * torch.tensor([0.2989, 0.5870, 0.1140], dtype=x.dtype).view(-1, 1, 1)).sum(
        1, keepdim=True
    )
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=x.dtype)
    kernel = torch.stack([across, across.T])[:, None]
    return (functional.conv2d(grey, kernel, padding=1).square().sum(1, keepdim=True) + 1e-6).sqrt()


def chunks(x, window):
    """As the published code cuts square images, by torch's unfold."""
    _, c, size, _ = x.shape
    count = size // window + 1
    stride = window - (count * window - size) // (count - 1)
    columns = functional.unfold(x, window, stride=stride)
    return columns.transpose(1, 2).reshape(-1, c, window, window)


def dv3cd(model, x, y):
    """`model` is transformers' DINOv3-ConvNeXt."""

    def maps(image):
        found, z = [image * 0.5 + 0.5], normalized(image)
        for stage in model.model.stages[:3]:
            z = l2_pool(stage(z), 1)
            found.append(z)
        return found

    maps_x, maps_y = maps(x), maps(y)
    channels = sum(m.shape[1] for m in maps_x)
    weight = torch.full((channels,), 1 / (2 * channels), dtype=x.dtype)
    return (1 - similarity(maps_x, maps_y, weight, weight)).mean()


def augmented(x, drawn):
    """The published augmentation, with the random numbers given (`Augmentation`), by indexing."""
    brightness, saturation, contrast = (
        torch.from_numpy(np.array(v)).to(x).view(-1, 1, 1, 1) for v in drawn[:3]
    )
    x = x + brightness
    mean = x.mean(1, keepdim=True)
    x = (x - mean) * saturation + mean
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * contrast + mean
    b, _, h, w = x.shape
    out = torch.zeros_like(x)
    for n in range(b):
        down, right = (int(v) for v in drawn.shift[n])
        for i in range(h):
            for j in range(w):
                if 0 <= i - down < h and 0 <= j - right < w:
                    out[n, :, i, j] = x[n, :, i - down, j - right]
        high, wide = int(h * 0.5 + 0.5), int(w * 0.5 + 0.5)
        top, left = int(drawn.hole[n, 0]) - high // 2, int(drawn.hole[n, 1]) - wide // 2
        mask = torch.ones(h, w, dtype=x.dtype)
        mask[max(top, 0) : top + high, max(left, 0) : left + wide] = 0
        out[n] = out[n] * mask
    return out
