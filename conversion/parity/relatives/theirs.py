"""Runs the published code of OMGSR's relatives, from a checkout, on files that they read."""

import os
import runpy
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from ..arrays import to_nhwc
from .stand_ins import EINOPS, MODE, MOVED, ON_CPU, TORCHVISION, _module, old_diffusers, published

TAGS = "a cat on a wall"


@dataclass(frozen=True)
class Published:
    """What their code made of a picture, h w 3."""

    seen: np.ndarray | None  # by the networks, in [0, 1], if it is not the enlarged picture
    before: np.ndarray  # rounding, in [0, 1]
    after: np.ndarray  # uint8


@dataclass(frozen=True)
class Given:
    """What their code is given.

    Attributes:
        process_size: a quarter of theirs, and so are tiles: all that depends on them is there.
        scale: how many times as large.
        strengths: None for the default setting.
        whole: put their VAE to work in one piece, where it would work in tiles of its own.
    """

    checkout: Path
    base: Path
    weights: Path
    pictures: Path  # a folder of PNG files
    process_size: int = 128
    scale: int = 4
    strengths: tuple[float, float] | None = None
    whole: bool = False

    @property
    def tile(self) -> int:
        """In latents, of OSEDiff and PiSA-SR."""
        return 3 * self.process_size // 16


def hypir(given: Given) -> dict[str, Published]:
    """`SD2Enhancer` with its own config, in fp32 in place of bf16."""
    import torch
    import yaml

    config = yaml.safe_load((given.checkout / "configs" / "sd2_gradio.yaml").read_text())
    found = {}
    with published(given.checkout), _inside(given.checkout):
        from HYPIR.enhancer import base
        from HYPIR.enhancer.sd2 import SD2Enhancer

        names = ("lora_modules", "lora_rank", "model_t", "coeff_t")
        settings = {name: config[name] for name in names}
        enhancer = SD2Enhancer(str(given.base), str(given.weights), device="cpu", **settings)
        enhancer.weight_dtype = torch.float32
        enhancer.init_models()
        tiled = base.make_tiled_fn

        def whole(fn: Callable[..., Any], *, desc: str, **how: Any) -> Callable[..., Any]:
            return fn if desc.startswith("VAE") else tiled(fn, desc=desc, **how)

        with mock.patch.object(base, "make_tiled_fn", whole if given.whole else tiled):
            for path in _pictures(given):
                x = torch.from_numpy(np.asarray(Image.open(path), np.float32) / 255)
                x = x.permute(2, 0, 1)[None].contiguous()
                before = enhancer.enhance(
                    x,
                    "",
                    upscale=given.scale,
                    patch_size=given.process_size,
                    stride=given.process_size // 2,
                    return_type="pt",
                )
                (after,) = enhancer.tensor2image(before)
                found[path.name] = Published(None, to_nhwc(before)[0], after)
    return found


def pisa(given: Given) -> dict[str, Published]:
    """`pisa_sr` of test_pisasr.py, with its own defaults but for fp32 and sizes."""
    with published(given.checkout), old_diffusers(), _inside(given.checkout):
        import pisasr
        import test_pisasr

        pixel, semantic = given.strengths or (1.0, 1.0)
        settings = Namespace(
            input_image=str(given.pictures),
            output_dir=str(_results(given)),
            pretrained_model_path=str(given.base),
            pretrained_path=str(given.weights),
            process_size=given.process_size,
            upscale=given.scale,
            align_method="adain",
            lambda_pix=pixel,
            lambda_sem=semantic,
            vae_decoder_tiled_size=224,
            vae_encoder_tiled_size=1024,
            latent_tiled_size=given.tile,
            latent_tiled_overlap=given.tile // 3,
            mixed_precision="fp32",
            default=given.strengths is None,
        )
        with _recorded(pisasr.PiSASR_eval, lambda args: args[1], lambda out: out[1]) as calls:
            test_pisasr.pisa_sr(settings)
    return _of_files(given, calls)


def osediff(given: Given) -> dict[str, Published]:
    """test_osediff.py, with its own defaults but for fp32 and sizes; tags are said beforehand."""
    from diffusers import DDPMScheduler

    argv = ["test_osediff.py", "-i", given.pictures, "-o", _results(given)]
    argv += ["--pretrained_model_name_or_path", given.base, "--osediff_path", given.weights]
    argv += ["--mixed_precision", "fp32", "--upscale", given.scale]
    argv += ["--process_size", given.process_size, "--latent_tiled_size", given.tile]
    argv += ["--latent_tiled_overlap", given.tile // 3]
    with published(given.checkout), old_diffusers(), _inside(given.checkout), _tagger():
        import osediff

        with (
            mock.patch.object(DDPMScheduler, "previous_timestep", _previous_timestep),
            mock.patch.object(sys, "argv", list(map(str, argv))),
            _recorded(osediff.OSEDiff_test, lambda args: args[0], lambda out: out) as calls,
        ):
            runpy.run_path(str(given.checkout / "test_osediff.py"), run_name="__main__")
    return _of_files(given, calls)


# What runs a recipe's published code, and what stands in for parts of it.
RUNNERS: Mapping[str, tuple[Callable[[Given], dict[str, Published]], tuple[str, ...]]] = {
    "hypir-sd2": (
        hypir,
        (ON_CPU, MODE, EINOPS, "bf16: `weight_dtype` is set to float32 before models are read"),
    ),
    "pisa-sr": (pisa, (ON_CPU, MODE, TORCHVISION, EINOPS, MOVED)),
    "osediff": (
        osediff,
        (
            ON_CPU,
            MODE,
            TORCHVISION,
            EINOPS,
            MOVED,
            f"the tagger (RAM, DAPE): it says {TAGS!r} of every picture",
            "diffusers 0.25: a scheduler's previous timestep is counted, not looked up",
        ),
    ),
}


def prompt_of(recipe: str) -> str | None:
    """What the converted model's prompt must be to be theirs; None for the recipe's own."""
    return f"{TAGS}, ," if recipe == "osediff" else None


def _previous_timestep(scheduler: Any, timestep: Any) -> Any:
    total = scheduler.config.num_train_timesteps
    return timestep - total // (scheduler.num_inference_steps or total)


@contextmanager
def _tagger() -> Iterator[None]:
    import torch

    package = _module("ram", inference_ram=lambda image, model: [TAGS])
    models = _module("ram.models")
    tagger = _module("ram.models.ram_lora", ram=lambda **how: torch.nn.Identity())
    names = {"ram": package, "ram.models": models, "ram.models.ram_lora": tagger}
    with mock.patch.dict(sys.modules, names):
        yield


@contextmanager
def _recorded(
    network: Any, seen: Callable[[Any], Any], given: Callable[[Any], Any]
) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """What a module's calls were given and gave, in [0, 1]."""
    calls: list[tuple[np.ndarray, np.ndarray]] = []
    forward = network.forward

    def recording(self: Any, *args: Any, **named: Any) -> Any:
        out = forward(self, *args, **named)
        pair = (to_nhwc(x)[0] * 0.5 + 0.5 for x in (seen(args), given(out)))
        calls.append((next(pair), next(pair)))
        return out

    with mock.patch.object(network, "forward", recording):
        yield calls


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _pictures(given: Given) -> list[Path]:
    return sorted(given.pictures.glob("*.png"))


def _results(given: Given) -> Path:
    return given.pictures.with_name(f"{given.pictures.name}-published")


def _of_files(given: Given, calls: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Published]:
    return {
        path.name: Published(*call, np.asarray(Image.open(_results(given) / path.name)))
        for path, call in zip(_pictures(given), calls, strict=True)
    }
