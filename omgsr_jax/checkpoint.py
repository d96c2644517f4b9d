"""A converted model on disk: a directory that names everything needed to use it.

    omgsr.json   what the model is and where it came from (`ModelCard`)
    params/      its weights, in Orbax's format: read shard by shard, from a local disk or a bucket

A weight's name is its path in the generator, such as `vae.encoder.conv_in.kernel`; an adapter's
factors stand beside the kernel that they adapt (`vae.encoder.conv_in.lora_A.kernel`).
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Sharding

from .errors import InputError
from .generator import OMGSR, OMGSRConfig
from .models import int8, lora, stack
from .models.flux import FluxConfig
from .models.lora import LoRASpec
from .models.unet import UNetConfig
from .models.vae import VAE, VAEConfig
from .process import DDPM, FlowMatching
from .storage import Weight, restore, tree_shapes, write_directory

Module = TypeVar("Module", bound=nnx.Module)
Card = TypeVar("Card")

FORMAT = 1
CARD = "omgsr.json"
PARAMS = "params"
PRECISIONS = {"fp32": jnp.float32, "bf16": jnp.bfloat16}
INFERENCE_PRECISIONS = (*PRECISIONS, "int8")

# How the parts that have variants are called in omgsr.json.
_KINDS: dict[str, type] = {
    "unet": UNetConfig,
    "flux": FluxConfig,
    "ddpm": DDPM,
    "flow_matching": FlowMatching,
}


@dataclass(frozen=True)
class ModelCard:
    """The content of omgsr.json."""

    generator: OMGSRConfig
    process_size: int
    prompt: str
    # Every file that went in: name -> sha256.
    sources: Mapping[str, str] = field(default_factory=dict)
    # Which colours results get where none are asked for: see inference/colour.py.
    color: str = "adain"

    def to_json(self) -> dict[str, Any]:
        parts = {
            item.name: getattr(self.generator, item.name)
            for item in dataclasses.fields(self.generator)
        }
        return {
            "format": FORMAT,
            "generator": {name: _to_json(part) for name, part in parts.items()},
            "process_size": self.process_size,
            "prompt": self.prompt,
            "sources": dict(self.sources),
            "color": self.color,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ModelCard":
        parts = content["generator"]
        return cls(
            generator=OMGSRConfig(
                vae=from_json(VAEConfig, parts["vae"]),
                backbone=from_json(_KINDS[parts["backbone"]["kind"]], parts["backbone"]),
                process=from_json(_KINDS[parts["process"]["kind"]], parts["process"]),
                mid_timestep=parts["mid_timestep"],
                prompt_shapes={k: tuple(v) for k, v in parts["prompt_shapes"].items()},
                encoder_lora=from_json(LoRASpec, parts["encoder_lora"]),
                backbone_lora=from_json(LoRASpec, parts["backbone_lora"]),
            ),
            process_size=content["process_size"],
            prompt=content["prompt"],
            sources=content["sources"],
            color=content.get("color", cls.color),
        )


def _to_json(part: Any) -> Any:
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        kind = {"kind": _kind_name(part)} if type(part) in _KINDS.values() else {}
        return kind | dataclasses.asdict(part)
    return part


def from_json(kind: type, content: Mapping[str, Any] | None) -> Any:
    """The config of class `kind` that was written as `content`."""
    if content is None:
        return None
    return kind(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content.items()
            if name != "kind"
        }
    )


def weights(model: nnx.Module) -> dict[str, nnx.Variable]:
    """The variables of a generator, or of a part of it, by name."""
    return by_name(nnx.state(model))


def by_name(state: nnx.State) -> dict[str, nnx.Variable]:
    return {weight_name(path): leaf for path, leaf in state.flat_state()}


def weight_name(path: Iterable[Any]) -> str:
    """The dotted name of a weight: its path, whether its layer is adapted or not."""
    return ".".join(str(part) for part in path if part != "base_layer")


def write(directory: str | Path, card: ModelCard, params: Mapping[str, Weight]) -> None:
    """Writes a converted model. It appears under its name only when it is whole."""
    write_directory(directory, CARD, card.to_json(), {PARAMS: params})


def read_card(directory: str | Path) -> ModelCard:
    return read_description(
        directory, CARD, "a converted model", "omgsr convert", ModelCard.from_json
    )


def read_description(
    directory: str | Path,
    card_name: str,
    what: str,
    command: str,
    parse: Callable[[dict[str, Any]], Card],
) -> Card:
    """What the card in `directory` says; it should be `what`, which `command` makes."""
    path = epath.Path(directory) / card_name
    if not path.exists():
        raise InputError(
            f"{directory} is not {what}: it has no {card_name}. Make one with `{command}`."
        )
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise InputError(
                f"{path} has format {content['format']}, this version of omgsr-jax reads {FORMAT}. "
                "Convert again, or install a version that fits."
            )
        return parse(content)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error!r}. Convert again.") from error


def read(
    directory: str | Path,
    *,
    sharding: Callable[[str], Sharding] | None = None,
    remat: bool = False,
) -> OMGSR:
    """The generator with its adapters apart, in the precision that it is stored in.

    Args:
        directory: a converted model, local or in a bucket (gs://...).
        sharding: where each weight goes, by name; each process reads only its own shards. By
            default the weights are NumPy arrays on the host.
        remat: recompute activations in the backward pass.
    """
    model = OMGSR(read_card(directory).generator, remat=remat, rngs=None)
    return fill(model, restore(epath.Path(directory) / PARAMS, set(weights(model)), sharding))


def by_name_on_host(directory: str | Path) -> dict[str, np.ndarray]:
    """All weights of a converted model by name, as NumPy arrays."""
    return restore(epath.Path(directory) / PARAMS, set(stored_shapes(directory)))


def read_prompt(directory: str | Path) -> dict[str, np.ndarray]:
    """The prompt's embeddings by the backbone's keyword, without the rest of the model."""
    names = {f"prompt.{name}" for name in read_card(directory).generator.prompt_shapes}
    restored = restore(epath.Path(directory) / PARAMS, names, part=True)
    return {name.removeprefix("prompt."): array for name, array in restored.items()}


def read_vae(directory: str | Path) -> VAE:
    """The pre-trained VAE alone, in fp32: no adapter, and nothing of the backbone is read."""
    vae = VAE(read_card(directory).generator.vae, rngs=None)
    names = {f"vae.{name}" for name in weights(vae)}
    params = restore(epath.Path(directory) / PARAMS, names, part=True)
    return fill(
        vae,
        {name.removeprefix("vae."): array.astype(np.float32) for name, array in params.items()},
    )


def set_mid_timestep(directory: str | Path, mid_timestep: int) -> None:
    """Rewrites the mid-timestep of a converted model that has not been trained at another one."""
    card = require_untrained(directory)
    generator = dataclasses.replace(card.generator, mid_timestep=mid_timestep)
    content = dataclasses.replace(card, generator=generator).to_json()
    partial = epath.Path(directory) / f".{CARD}.partial"
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(epath.Path(directory) / CARD)


def require_untrained(directory: str | Path) -> ModelCard:
    """The card of a model without adapters, whose mid-timestep may still be chosen."""
    card = read_card(directory)
    if card.generator.encoder_lora or card.generator.backbone_lora:
        raise InputError(
            f"the adapters in {directory} were trained at mid-timestep "
            f"{card.generator.mid_timestep} and would not fit another one. Convert the base "
            "without --adapter, choose, and train that."
        )
    return card


def fill(model: Module, params: Mapping[str, Any]) -> Module:
    """`model` (with shapes in place of arrays) with its weights taken from `params` by name."""
    graph, state = nnx.split(model)
    filled = {path: leaf.replace(params[weight_name(path)]) for path, leaf in state.flat_state()}
    return nnx.merge(graph, nnx.State.from_flat_path(filled))


def stored_shapes(directory: str | Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every weight of a converted model, without reading the weights."""
    return tree_shapes(epath.Path(directory) / PARAMS)


def for_inference(model: OMGSR, precision: str) -> OMGSR:
    """Merges the adapters (in fp32), casts to the precision to compute in, and moves to the device.

    "int8" quantises the backbone's blocks and computes in bf16. All of it is done on the host where
    the weights are there, which spares memory, and compiling hundreds of small programs; and on the
    devices over which they are divided, where they are.
    """
    dtype = PRECISIONS["bf16" if precision == "int8" else precision]
    with jax.default_matmul_precision("highest"):
        lora.merge(model.vae.encoder, dtype=dtype)
        lora.merge(model.backbone, dtype=dtype)
    model = _mapped(model, lambda leaf: leaf.astype(dtype, copy=False))
    if precision == "int8":
        int8.quantise(model.backbone, dtype)
    return _mapped(model, jnp.asarray)


def _mapped(model: Module, change: Callable[[Any], Any]) -> Module:
    """`model` with its arrays changed one by one; it loses them, as there may not be room twice."""
    graph, state = nnx.split(model)
    leaves, treedef = jax.tree.flatten(state)
    del state
    for _, part in nnx.iter_modules(model):
        for name, value in list(vars(part).items()):
            if isinstance(value, nnx.Variable):
                delattr(part, name)
    for i, leaf in enumerate(leaves):
        leaves[i] = change(leaf)
    return nnx.merge(graph, jax.tree.unflatten(treedef, leaves))


def describe(directory: str | Path) -> dict[str, Any]:
    """What a converted model is, for people to read; the weights are not loaded."""
    card, shapes = read_card(directory), stored_shapes(directory)
    generator = card.generator

    def parameters(prefix: str, *, adapter: bool = False) -> str:
        sizes = (
            math.prod(leaf.shape)
            for name, leaf in shapes.items()
            if name.startswith(prefix) and (".lora_" in name) == adapter
        )
        return f"{sum(sizes) / 1e6:.2f} M"

    def adapter(spec: LoRASpec | None, prefix: str) -> str:
        if spec is None:
            return "none"
        layers = sum(
            stack.depth(name, leaf.shape)
            for name, leaf in shapes.items()
            if name.startswith(prefix) and name.endswith("lora_A.kernel")
        )
        size = parameters(prefix, adapter=True)
        return f"rank {spec.rank}, alpha {spec.alpha}, on {layers} layers, {size} parameters"

    files = [path for path in Path(directory).rglob("*") if path.is_file()]
    return {
        "model": directory,
        "backbone": f"{_kind_name(generator.backbone)}, {parameters('backbone.')} parameters",
        "backbone LoRA": adapter(generator.backbone_lora, "backbone."),
        "VAE": f"{generator.vae.latent_channels} channels, {parameters('vae.')} parameters",
        "encoder LoRA": adapter(generator.encoder_lora, "vae.encoder."),
        "process": f"{_kind_name(generator.process)}, {generator.process.timesteps} timesteps",
        "mid-timestep": generator.mid_timestep,
        "process size": f"{card.process_size} px",
        "prompt": repr(card.prompt),
        "color": card.color,
        "stored as": ", ".join(sorted({str(leaf.dtype) for leaf in shapes.values()})),
        "size on disk": f"{sum(path.stat().st_size for path in files) / 1e6:.1f} MB",
        "sources": dict(card.sources),
    }


def _kind_name(part: Any) -> str:
    return next(name for name, kind in _KINDS.items() if isinstance(part, kind))
