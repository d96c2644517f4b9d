"""Pictures through a published script, as its command runs it, and through ours with its quirks."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import jax
import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

import omgsr_jax
from omgsr_jax.inference.sizes import Size
from omgsr_jax.quirks import Quirks

from ...convert import convert
from ...recipe_table import V1_PROMPT
from .. import random_checkpoints
from ..processes import in_own_process
from . import stand_ins
from .checkout import Checkout

_PROCESS_SIZE = 64
# Pictures of more contrast than the source's. AdaIN would stretch those of a random decoder, and
# with them the one level by which fp32's rounding moves a number across a truncation.
_CONTRAST = 6
_COLORS = {"nofix": "none"}  # of the scripts, where ours has another name
PRESETS = {"s": "s-published", "f": "f-published"}
T_M = {("s", "v1"): 195, ("s", "v2"): 273, ("f", "v1"): 295, ("f", "v2"): 244}
PROMPTS = {"v1": V1_PROMPT, "v2": ""}


@dataclass(frozen=True)
class Case:
    """A call of the script's command, on pictures of these heights and widths."""

    kind: str  # s or f
    scale: int
    color: str  # as the script calls it
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Found:
    """How far one picture of ours is from the script's."""

    kind: str
    scale: int
    color: str
    source: Size
    output: Size
    levels: int  # the largest difference, of 255
    share: float  # of all values that differ


_FLUX_INDEX = {
    "_class_name": "FluxPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
_WHOLE, _SMALL, _ODD, _TILED, _SHRUNK = (16, 16), (11, 13), (19, 27), (40, 28), (16, 24)


def cases(version: str) -> list[Case]:
    """v1's script fails at small pictures, and FLUX at tiles that are not of the process size."""
    small = () if version == "v1" else (_SMALL,)
    shrunk = () if version == "v1" else (_SHRUNK,)
    usual = (_WHOLE, *small, _ODD, _TILED)
    return [
        *(Case(kind, 4, "adain", usual) for kind in ("s", "f")),
        *(Case(kind, 4, color, (_ODD,)) for kind in ("s", "f") for color in ("wavelet", "nofix")),
        Case("s", 2, "adain", (*small, (45, 38))),
        Case("s", 3, "adain", (*shrunk, (29, 43))),
        Case("f", 2, "adain", ((68, 36),)),  # 136 x 72 px: 17 x 9 latents
        Case("f", 3, "adain", ((24, 31),)),
    ]


def compare(checkout: Checkout, kind: str, *, seed: int = 0) -> Iterator[Found]:
    of_kind = [case for case in cases(checkout.version) if case.kind == kind]
    with tempfile.TemporaryDirectory(prefix="omgsr-published-") as scratch:
        yield from _compare_kind(checkout, kind, of_kind, Path(scratch), seed)


def write_checkpoint(kind: str, folder: Path, seed: int, contrast: float) -> tuple[Path, Path]:
    """A small random base and adapters for it, in the files that are downloaded.

    Its decoder's pictures have `contrast` times that of random weights.
    """
    base, adapter = folder / "base", folder / "adapter"
    preset = random_checkpoints.PRESETS[PRESETS[kind]]
    in_own_process(random_checkpoints.write_base, base, preset, seed=seed)
    _heighten(base / "vae" / "diffusion_pytorch_model.safetensors", contrast)
    in_own_process(random_checkpoints.write_adapters, adapter, base, preset, seed=seed + 1)
    if (
        preset.kind.network == random_checkpoints.FLUX.network
    ):  # its script loads the text encoders as a pipeline
        (base / "model_index.json").write_text(json.dumps(_FLUX_INDEX))
    return base, adapter


def _heighten(vae: Path, contrast: float) -> None:
    tensors = load_file(vae)
    tensors["decoder.conv_out.weight"] *= contrast
    save_file(tensors, vae, metadata={"format": "pt"})


def _compare_kind(
    checkout: Checkout, kind: str, of_kind: list[Case], scratch: Path, seed: int
) -> Iterator[Found]:
    base, adapter = write_checkpoint(kind, scratch, seed, _CONTRAST)
    for case in of_kind:
        for size in case.sizes:
            _write_picture(_folder(scratch, case) / _name(size), size)
    calls = [_arguments(checkout, case, scratch) for case in of_kind]
    in_own_process(_run_scripts, checkout, f"infer {kind}", calls)
    model = scratch / "model"
    convert(
        str(base),
        model,
        adapter=str(adapter),
        mid_timestep=T_M[kind, checkout.version],
        prompt=PROMPTS[checkout.version],
        process_size=_PROCESS_SIZE,
    )
    with jax.default_matmul_precision("highest"):
        upscaler = omgsr_jax.load(model, precision="fp32", quirks=cast(Quirks, checkout.version))
        for case in of_kind:
            for size in case.sizes:
                yield _compared(upscaler, case, size, scratch)


def _run_scripts(checkout: Checkout, script: str, calls: list[list[str]]) -> None:
    import torch

    torch.set_num_threads(1)  # for networks so small, threads wait for each other
    stand_ins.enter(checkout)
    stand_ins.for_inference(checkout)
    with stand_ins.quiet():
        for arguments in calls:
            checkout.run(script, arguments)


def _arguments(checkout: Checkout, case: Case, scratch: Path) -> list[str]:
    """Of the script's command; v1's has the tiles apart."""
    side = _PROCESS_SIZE // 8
    tiles = ["--tile_size", str(side), "--tile_overlap", str(side // 4)]
    return [
        "--input_image", str(_folder(scratch, case)),
        "--output_dir", str(_folder(scratch, case) / "theirs"),
        "--sd_path" if case.kind == "s" else "--flux_path", str(scratch / "base"),
        "--lora_path", str(scratch / "adapter"),
        "--device", "cpu",
        "--process_size", str(_PROCESS_SIZE),
        "--upscale", str(case.scale),
        "--align_method", case.color,
        "--weight_dtype", "fp32",
        "--mid_timestep", str(T_M[case.kind, checkout.version]),
        *(tiles if checkout.version == "v1" else []),
    ]  # fmt: skip


def _compared(upscaler: omgsr_jax.Upscaler, case: Case, size: Size, scratch: Path) -> Found:
    folder = _folder(scratch, case)
    color = _COLORS.get(case.color, case.color)
    ours = np.asarray(upscaler.upscale(folder / _name(size), scale=case.scale, color=color))
    with Image.open(folder / "theirs" / _name(size)) as opened:
        theirs = np.asarray(opened)
    if ours.shape != theirs.shape:
        raise ValueError(f"{case}, {size}: ours has the shape {ours.shape}, theirs {theirs.shape}")
    difference = np.abs(ours.astype(int) - theirs)
    height, width, _ = ours.shape
    return Found(
        case.kind, case.scale, case.color, size, (height, width),
        int(difference.max()), round(float((difference > 0).mean()), 6),
    )  # fmt: skip


def _folder(scratch: Path, case: Case) -> Path:
    return scratch / f"x{case.scale}-{case.color}"


def _name(size: Size) -> str:
    return f"{size[0]}x{size[1]}.png"


def _write_picture(path: Path, size: Size) -> None:
    """With structure at several scales, in 8 bits."""
    rng = np.random.default_rng(0)
    height, width = size
    total = np.zeros((height, width, 3))
    for cells in (2, 5, 11):
        coarse = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        for c in range(3):
            plane = Image.fromarray(coarse[..., c])
            total[..., c] += np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(127.5 + 50 * total, 0, 255).astype(np.uint8)).save(path)
