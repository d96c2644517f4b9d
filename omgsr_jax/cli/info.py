"""`omgsr info`: what a converted model is."""

import math
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import assets
from .values import MODEL, location

if TYPE_CHECKING:
    from ..converted import ModelCard
    from ..models.lora import LoRASpec

SUMMARY = "what a converted model is"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=location, metavar="MODEL", help=MODEL)


def run(args: Namespace) -> None:
    print_info(assets.model_directory(args.model))


def print_info(directory: str) -> None:
    for name, value in describe(directory).items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(f"    {item}  {key}")
        else:
            print(f"{name + ':':<15} {value}")


def describe(directory: str | Path) -> dict[str, Any]:
    """What a converted model is, for people to read; the weights are not loaded."""
    from etils import epath

    from .. import converted, digests
    from ..converted import kind_name
    from ..models import stack

    card, shapes = converted.read_card(directory), converted.stored_shapes(directory)
    generator = card.generator

    def parameters(prefix: str, *, adapter: bool = False) -> str:
        sizes = (
            math.prod(leaf.shape)
            for name, leaf in shapes.items()
            if name.startswith(prefix) and (".lora_" in name) == adapter
        )
        return f"{sum(sizes) / 1e6:.2f} M"

    def adapter(spec: "LoRASpec | None", prefix: str) -> str:
        if spec is None:
            return "none"
        layers = sum(
            stack.depth(name, leaf.shape)
            for name, leaf in shapes.items()
            if name.startswith(prefix) and name.endswith("lora_A.kernel")
        )
        size = parameters(prefix, adapter=True)
        return f"rank {spec.rank}, alpha {spec.alpha}, on {layers} layers, {size} parameters"

    size = sum(digests.size_of(path) for path in digests.below(epath.Path(directory)))
    return {
        "model": directory,
        "recipe": card.origin.recipe or "none that was published",
        "base": card.origin.base or "not on the hub",
        "licence": card.origin.licenses or "not known",
        "backbone": f"{kind_name(generator.backbone)}, {parameters('backbone.')} parameters",
        "backbone LoRA": adapter(generator.backbone_lora, "backbone."),
        "VAE": f"{generator.vae.latent_channels} channels, {parameters('vae.')} parameters",
        "encoder LoRA": adapter(generator.encoder_lora, "vae.encoder."),
        "process": f"{kind_name(generator.process)}, {generator.process.timesteps} timesteps",
        "mid-timestep": "adaptive" if generator.adaptive else generator.mid_timestep,
        "process size": f"{card.process_size} px",
        "tiles": _tiles(card),
        "prompt": repr(card.prompt),
        "color": card.color,
        "resizing": card.resizing,
        "stored as": ", ".join(sorted({str(leaf.dtype) for leaf in shapes.values()})),
        "digest": converted.digest(directory)
        or "none: an earlier version wrote this model, and what is read is not compared",
        "size on disk": f"{size / 1e6:.1f} MB",
        "sources": dict(card.sources),
    }


def _tiles(card: "ModelCard") -> str:
    size = card.tile_size or card.process_size
    overlap = size // 2 if card.tile_overlap is None else card.tile_overlap
    return f"{size} px, overlapping by {overlap}"
