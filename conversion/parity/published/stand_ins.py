"""What stands in for what the published code asks for and a CPU without a network does not have.

Every stand-in is a row of `STAND_INS`, which reports print. They are installed in a process of
their own, since they change PyTorch, diffusers and `sys.modules`. None of them computes what is
compared, but for PyTorch's networks that the hub would give (networks.py).
"""

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from .checkout import Checkout


class StandIn(NamedTuple):
    what: str
    by: str
    where: str  # infer, train or both


STAND_INS = (
    StandIn("torch.cuda.synchronize, Tensor.cuda, to('cuda')", "the CPU", "infer"),
    StandIn("the noise of the VAE's posterior", "0: its mode", "infer"),
    StandIn("the noise of the VAE's posterior, torch.randn_like", "given numbers", "train"),
    StandIn("torch.rand, torch.randint of DiffAugment", "given numbers", "train"),
    StandIn("bf16 as OMGSR_F_Infer's dtype (no option reaches it)", "fp32; its time stays bf16's",
            "infer"),
    StandIn("bf16 in FLUX's transformer and in autocast",
            "fp32; its time stays bf16's, and latents and predictions where compared so", "train"),
    StandIn("v2's encode_images without its last argument (a TypeError)",
            "the latents' dtype as its default", "train"),
    StandIn("the text encoders of F (v2: an undefined name)", "the config's fixed_prompt_path",
            "train"),
    StandIn("torch.hub.load: DINOv2, DINOv3's weights", "small random networks in the same files",
            "train"),
    StandIn("the data set with its degradation", "given pairs", "train"),
    StandIn("pyiqa's DISTS (its weights are on a hub)", "DISTS on a small random VGG16", "train"),
    StandIn("torchvision, if not installed", "to_tensor, ToPILImage, ToTensor; save_image: nothing",
            "both"),
    StandIn("omegaconf, if not installed", "PyYAML", "train"),
    StandIn("timm, clip, antialiased_cnns, gdown, einops, if not installed",
            "empty modules: nothing in them is called", "both"),
)  # fmt: skip


class Numbers:
    """Random numbers that were drawn elsewhere, handed out in their order."""

    def __init__(self, arrays: Iterator[Any]):
        self._arrays = arrays

    def next(self, shape: Any) -> Any:
        import torch

        array = next(self._arrays)
        found = torch.from_numpy(array)
        if tuple(found.shape) != tuple(shape):
            raise ValueError(f"the published code asks for {tuple(shape)}, not {array.shape}")
        return found


def enter(checkout: Checkout) -> None:
    """The process sees the checkout as its own code does, and no CUDA."""
    # Now, since these look for the packages that get a stand-in.
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    from diffusers import AutoencoderKL, FluxPipeline, UNet2DConditionModel  # noqa: F401
    from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel  # noqa: F401

    os.chdir(checkout.folder)
    sys.path.insert(0, str(checkout.folder))
    sys.dont_write_bytecode = True  # nothing is written into the checkout
    absent = {name for name in _MODULES if importlib.util.find_spec(name.partition(".")[0]) is None}
    for name in sorted(absent):
        module = sys.modules[name] = _MODULES[name](name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    _without_cuda()


def for_inference(checkout: Checkout) -> None:
    import torch
    from diffusers import FluxTransformer2DModel
    from diffusers.models.autoencoders import vae

    vae.randn_tensor = lambda shape, **_: torch.zeros(shape)
    of_class = importlib.import_module(checkout.flux_classes).OMGSR_F_Infer.__init__
    _, *others = of_class.__defaults__
    of_class.__defaults__ = (torch.float32, *others)
    forward = FluxTransformer2DModel.forward

    def told(self: Any, *args: Any, timestep: Any, **kwargs: Any) -> Any:
        return forward(self, *args, timestep=as_in_bf16(timestep), **kwargs)

    flux: Any = FluxTransformer2DModel
    flux.forward = told


def as_in_bf16(time: Any) -> Any:
    """What a network in bf16 makes of its time, which it multiplies by 1000."""
    return (time.bfloat16() * 1000).float() / 1000


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the published code says while it works."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


class Injected(ModuleType):
    """A module's `torch`, some of whose functions are others."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]):
        import torch

        super().__init__("torch")
        self._torch = torch
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)


def _without_cuda() -> None:
    import torch
    from diffusers import DiffusionPipeline

    torch.cuda.synchronize = lambda *_: None
    tensor: Any = torch.Tensor
    tensor.cuda = lambda self, *_: self
    pipeline: Any = DiffusionPipeline
    to = pipeline.to
    pipeline.to = lambda self, *args, **kwargs: to(self, *(_on_cpu(a) for a in args), **kwargs)


def _on_cpu(argument: Any) -> Any:
    return "cpu" if argument == "cuda" else argument


def _empty(name: str) -> ModuleType:
    module = _package(name)
    for unused in ("rearrange", "Rearrange"):
        setattr(module, unused, None)
    return module


def _transforms(name: str) -> ModuleType:
    module = _package(name)
    module.__dict__.update(ToPILImage=lambda: _to_image, ToTensor=lambda: _to_tensor)
    module.__dict__.update(to_tensor=_to_tensor)
    return module


def _to_tensor(image: Any) -> Any:
    """h w 3 in 8 bits to 3 h w in [0, 1]."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)


def _to_image(tensor: Any) -> Any:
    """As torchvision does it: what is behind the 8 bits is dropped."""
    from PIL import Image

    return Image.fromarray(tensor.mul(255).byte().permute(1, 2, 0).numpy())


def _utils(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(save_image=lambda *_: None)
    return module


def _package(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = []
    return module


def _omegaconf(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(
        OmegaConf=SimpleNamespace(load=lambda path: SimpleNamespace(**read_config(Path(path))),
                                  save=lambda *_: None)
    )  # fmt: skip
    return module


def read_config(path: Path) -> dict[str, Any]:
    """YAML, in which 1e-4 is a number."""
    import yaml

    found: dict[str, Any] = yaml.safe_load(path.read_text())
    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
    return {
        key: float(value) if isinstance(value, str) and number.fullmatch(value) else value
        for key, value in found.items()
    }


_MODULES: dict[str, Callable[[str], ModuleType]] = {
    "torchvision": _package,
    "torchvision.transforms": _transforms,
    "torchvision.transforms.functional": _transforms,
    "torchvision.utils": _utils,
    "omegaconf": _omegaconf,
    "einops": _empty,
    "einops.layers": _empty,
    "einops.layers.torch": _empty,
    "timm": _empty,
    "clip": _empty,
    "antialiased_cnns": _empty,
    "gdown": _empty,
}
