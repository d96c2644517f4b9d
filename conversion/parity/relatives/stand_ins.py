"""What stands in for parts that published code needs and this machine, or this project, lacks.

Each has a sentence, which the report repeats. Nothing else of the published code is replaced.
"""

import sys
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

ON_CPU = "CUDA: tensors that it moves to a GPU stay where they are"
MODE = "randomness: the posterior's mode stands for a sample of it"
TORCHVISION = "torchvision: ToTensor and ToPILImage, written anew, where it is not installed"
EINOPS = "einops and xformers: imported for attention on a GPU, and not called"
MOVED = "diffusers 0.25: names that have moved since, for its copies of the UNet and the VAE"


@contextmanager
def published(checkout: Path) -> Iterator[None]:
    """A checkout's own modules, on the CPU. No bytecode is written beside them."""
    # Now, since these look for the packages that get a stand-in.
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel  # noqa: F401
    from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer  # noqa: F401

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "dont_write_bytecode", True))
        stack.enter_context(mock.patch.object(sys, "path", [str(checkout), *sys.path]))
        stack.enter_context(mock.patch.dict(sys.modules, _libraries()))
        stack.enter_context(mock.patch.object(torch.cuda, "synchronize", return_value=None))
        stack.enter_context(_on_cpu())
        stack.enter_context(_modes())
        yield


def _on_cpu() -> Any:
    import torch
    from torch.overrides import TorchFunctionMode

    def here(value: Any) -> Any:
        is_device = isinstance(value, str | torch.device)
        return "cpu" if is_device and str(value).startswith("cuda") else value

    class OnCPU(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if function is torch.Tensor.cuda:
                return args[0]
            named = {name: here(value) for name, value in (kwargs or {}).items()}
            return function(*map(here, args), **named)

    return OnCPU()


def _modes() -> Any:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    mode = DiagonalGaussianDistribution.mode
    return mock.patch.object(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: mode(self)
    )


def _libraries() -> dict[str, types.ModuleType]:
    found: dict[str, types.ModuleType] = {}
    try:
        import torchvision  # noqa: F401
    except ImportError:
        found |= _torchvision()
    try:
        import einops  # noqa: F401
    except ImportError:
        found["einops"] = _module("einops", rearrange=None)
    return found


def _module(name: str, **contents: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(contents)
    return module


def _torchvision() -> dict[str, types.ModuleType]:
    functional = _module("torchvision.transforms.functional", to_tensor=_to_tensor)
    transforms = _module(
        "torchvision.transforms",
        functional=functional,
        ToTensor=lambda: _to_tensor,
        ToPILImage=lambda: _to_image,
        Compose=lambda steps: lambda x: _composed(steps, x),
        Resize=lambda size: lambda x: x,  # of what the tagger alone sees
        Normalize=lambda mean, std: lambda x: x,
    )
    parts = {"torchvision.transforms": transforms, "torchvision.transforms.functional": functional}
    return {"torchvision": _module("torchvision", transforms=transforms), **parts}


def _composed(steps: Any, x: Any) -> Any:
    for step in steps:
        x = step(x)
    return x


def _to_tensor(image: Image.Image) -> Any:
    import torch

    pixels = np.array(image)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div(255)


def _to_image(tensor: Any) -> Image.Image:
    return Image.fromarray(tensor.mul(255).byte().permute(1, 2, 0).numpy())


@contextmanager
def old_diffusers() -> Iterator[None]:
    """The names that diffusers 0.25 had, for copies of its files."""
    import diffusers.loaders as loaders
    from diffusers.loaders import FromOriginalModelMixin, PeftAdapterMixin
    from diffusers.models import embeddings
    from diffusers.models.unets import unet_2d_blocks

    class Loaders(PeftAdapterMixin, FromOriginalModelMixin):
        pass

    modules = {"diffusers.models.unet_2d_blocks": unet_2d_blocks}
    names = {
        (loaders, "UNet2DConditionLoadersMixin"): Loaders,
        (loaders, "FromOriginalVAEMixin"): Loaders,
        (embeddings, "PositionNet"): embeddings.GLIGENTextBoundingboxProjection,
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(sys.modules, modules))
        for (module, name), value in names.items():
            stack.enter_context(mock.patch.object(module, name, value, create=True))
        yield
