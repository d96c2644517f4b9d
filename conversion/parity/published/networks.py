"""What the published code asks the hub and pyiqa for, in PyTorch, with the weights of judges.py."""

from pathlib import Path
from typing import Any

from omgsr_jax.models.features import IMAGENET_MEAN

from ..torch_judges import normalized, vgg16
from . import judges
from .checkout import Checkout


class Hub:
    """In place of torch.hub.load. It has no network."""

    def __init__(self, checkout: Checkout, weights: Path):
        self._checkout, self._weights = checkout, weights

    def load(self, *args: Any, **kwargs: Any) -> Any:
        """v1 asks for ('facebookresearch/dinov2', model), v2 for a local ConvNeXt by keyword."""
        if args[:1] == ("facebookresearch/dinov2",):
            return _dinov2(self._weights / judges.DINOV2)
        if str(kwargs.get("model", "")).startswith("dinov3_convnext_"):
            return self._convnext()
        raise ValueError(f"no stand-in for torch.hub.load of {args or kwargs}")

    def _convnext(self) -> Any:
        """DINOv3's own class, which the checkout holds, in a smaller size."""
        from safetensors.torch import load_file

        network = self._checkout.convnext().ConvNeXt(**judges.CONVNEXT_SIZE)
        tensors = load_file(self._weights / judges.CONVNEXT)
        absent = network.load_state_dict(tensors, strict=False)
        assert all(key.startswith("norms.") for key in absent.missing_keys), absent
        return network


def _dinov2(folder: Path) -> Any:
    from torch import nn
    from transformers import Dinov2Model

    class DINOv2(nn.Module):
        """With the original's `get_intermediate_layers`: the last eight maps, normed, without the
        class token. It has three; v1 looks at the first, the fifth and the last of eight."""

        def __init__(self) -> None:
            super().__init__()
            self.network = Dinov2Model.from_pretrained(folder)

        def get_intermediate_layers(self, x: Any, n: int) -> list[Any]:
            assert n == 8
            hidden = self.network(x, output_hidden_states=True).hidden_states[1:]
            first, fifth, last = (self.network.layernorm(maps)[:, 1:] for maps in hidden)
            return [first] * 4 + [fifth] * 3 + [last]

    return DINOv2()


def dists(weights: Path) -> Any:
    """pyiqa's DISTS as a loss, on images b c h w in [0, 1]; c may be 1."""
    import torch
    from safetensors.torch import load_file
    from torch import nn

    factors = load_file(weights / judges.DISTS)
    vgg = vgg16(load_file(weights / judges.VGG)).eval().requires_grad_(False)
    total = factors["alpha"].sum() + factors["beta"].sum()
    taps = torch.tensor([0.25, 0.5, 0.25])

    def pooled(x: Any) -> Any:
        kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 3, 3)
        x = nn.functional.conv2d(x * x, kernel, stride=2, padding=1, groups=x.shape[1])
        return (x + 1e-12).sqrt()

    def maps(x: Any) -> list[Any]:
        found, h = [x], normalized(x, IMAGENET_MEAN)
        for layer in vgg:
            if isinstance(layer, nn.MaxPool2d):
                found.append(h)
                h = pooled(h)
            else:
                h = layer(h)
        return [*found, h]

    def distance(x: Any, y: Any) -> Any:
        score: Any = 0
        first = 0
        for a, b in zip(maps(x), maps(y), strict=True):
            count = a.shape[1] if first else 3  # a grey image has the three weights of colours
            alpha, beta = (
                factors[name][:, first : first + count] / total for name in ("alpha", "beta")
            )
            first += count
            mean_a, mean_b = (m.mean((2, 3), keepdim=True) for m in (a, b))
            texture = (2 * mean_a * mean_b + 1e-6) / (mean_a**2 + mean_b**2 + 1e-6)
            var_a = ((a - mean_a) ** 2).mean((2, 3), keepdim=True)
            var_b = ((b - mean_b) ** 2).mean((2, 3), keepdim=True)
            covariance = (a * b).mean((2, 3), keepdim=True) - mean_a * mean_b
            structure = (2 * covariance + 1e-6) / (var_a + var_b + 1e-6)
            score = score + (alpha * texture + beta * structure).sum((1, 2, 3))
        return (1 - score).mean()

    return distance
