"""A PyTorch checkpoint, with or without an OMGSR adapter, to a converted model and back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from flax import nnx

from omgsr_jax import converted, files
from omgsr_jax.converted import ModelCard
from omgsr_jax.descriptions import Json, build, first_line, read_json
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR, OMGSRConfig
from omgsr_jax.models.lora import LoRASpec
from omgsr_jax.models.vae import VAEConfig
from omgsr_jax.storage import Pending, Weight
from omgsr_jax.weights import PRECISIONS, variables

from . import backbones, configs, peft_adapters, prompts, recipes
from .diffusers_folder import DiffusersFolder, sha256
from .keymap import VAE, Spelling, plan_state, torch_state
from .peft_adapters import Adapter
from .recipes import Recipe
from .tensor_files import write_safetensors

Some = TypeVar("Some", Pending, np.ndarray)

# What `export` remembers of a converted model that no file of PyTorch's formats can say.
_RECIPE = "recipe.json"
_BASE_WEIGHTS = nnx.filterlib.Not(nnx.LoRAParam)


def convert(
    base: str,
    out: str | Path,
    *,
    adapter: str | None = None,
    prompt: str | None = None,
    mid_timestep: int | None = None,
    process_size: int | None = None,
    precision: str | None = None,
    allow_pickle: bool = False,
) -> ModelCard:
    """Converts a diffusers checkpoint and the adapters trained on it; writes the result to `out`.

    Args:
        base: a diffusers folder, or the hub id of one.
        out: the converted model; must not exist yet.
        adapter: a folder with the published adapter sub-folders; without it the base alone is
            converted, as training needs it.
        prompt, mid_timestep, process_size: default to those of the published recipe that the base
            belongs to.
        precision: "fp32" or "bf16" for the base's weights; by default they are stored as they are.
        allow_pickle: open pickled weights with torch.load(weights_only=True).
    """
    files.require_new(out)
    folder = DiffusersFolder(base, allow_pickle=allow_pickle)
    kind = backbones.of_folder(folder)
    adapters = _Adapters(adapter, allow_pickle)
    recipe = recipes.complete(
        _recipe_of(folder), mid_timestep=mid_timestep, prompt=prompt, process_size=process_size
    )
    parts = {
        "vae": configs.vae_config(folder.config("vae"), f"{folder.path}/vae/config.json"),
        "backbone": kind.read_config(
            folder.config(kind.folder), f"{folder.path}/{kind.folder}/config.json"
        ),
        "process": kind.read_process(
            folder.config("scheduler", "scheduler_config.json"),
            f"{folder.path}/scheduler/scheduler_config.json",
        ),
        "encoder_lora": adapters.encoder_spec,
        "backbone_lora": adapters.backbone_spec,
    }
    weights = {name: folder.tensors(name) for name in ("vae", kind.folder)}
    # The text encoder takes seconds: only when what else is there is in order.
    embeddings = prompts.exported(folder) or kind.embed_prompt(folder, recipe.prompt)
    shapes = {name: array.shape for name, array in embeddings.items()}
    try:
        generator = OMGSRConfig(**parts, mid_timestep=recipe.mid_timestep, prompt_shapes=shapes)
        model = OMGSR(generator, rngs=None)
    except ValueError as error:
        raise InputError(f"{folder.path} cannot be converted: {first_line(error)}") from error
    dtype = np.dtype(PRECISIONS[precision]) if precision else None

    def part(name: str, module: nnx.Module, spelling: Spelling) -> dict[str, Pending]:
        return plan_state(
            weights[name],
            nnx.state(module, _BASE_WEIGHTS),
            spelling=spelling,
            headline=f"the weights in {folder.path / name} do not fit their config",
            dtype=dtype,
        )

    params: dict[str, Weight] = {
        **adapters.factors(model),
        **_prefixed("vae", part("vae", model.vae, VAE)),
        **_prefixed("backbone", part(kind.folder, model.backbone, kind.spelling)),
        **_prefixed("prompt", embeddings),
    }
    card = ModelCard(
        generator=generator,
        process_size=recipe.process_size,
        prompt=recipe.prompt,
        sources=folder.sources | adapters.sources,
        color=recipe.color,
    )
    converted.write(out, card, params)
    return card


def export(model_directory: str | Path, out: str | Path) -> None:
    """Writes a converted model as a diffusers folder, its adapters beside it as peft folders.

    The folder has no text encoder; the prompt's embeddings stand in its place.
    """
    files.require_new(out)
    card = converted.read_card(model_directory)
    model = converted.read(model_directory)
    generator = card.generator
    if not isinstance(generator.vae, VAEConfig):
        raise InputError(
            f"{model_directory} has a VAE of this project's own, which diffusers does not know: "
            "only models with an AutoencoderKL can be exported"
        )
    kind = backbones.of_config(generator.backbone)
    size = sum(leaf.nbytes for leaf in variables(model).values())
    with files.new_directory(out, bytes_needed=size) as folder:
        _write_part(folder / "vae", configs.vae_json(generator.vae), model.vae)
        _write_part(folder / kind.folder, kind.write_config(generator.backbone), model.backbone)
        _write_json(
            folder / "scheduler" / "scheduler_config.json",
            kind.write_process(generator.process),
        )
        write_safetensors(
            folder / prompts.EXPORTED,
            {name: np.asarray(e[...]) for name, e in model.prompt.items()},
        )
        recipe = Recipe(
            "exported", generator.mid_timestep, card.prompt, card.process_size, card.color
        )
        _write_json(folder / _RECIPE, vars(recipe))
        _write_adapters(folder, generator, model)


class _Adapters:
    """The encoder's and the backbone's adapter, each of which may be absent."""

    def __init__(self, folder: str | None, allow_pickle: bool):
        self.encoder: Adapter | None = None
        self.backbone: Adapter | None = None
        self.sources: dict[str, str] = {}
        if folder is None:
            return
        path = Path(folder).expanduser()
        encoder = peft_adapters.find_adapter(path, peft_adapters.ENCODER_FOLDERS)
        backbone = peft_adapters.find_adapter(path, peft_adapters.BACKBONE_FOLDERS)
        if not (encoder and backbone):
            raise InputError(
                f"{folder} is not an OMGSR adapter: expected the sub-folders "
                f"{peft_adapters.ENCODER_FOLDERS[0]} and {peft_adapters.BACKBONE_FOLDERS[0]}"
            )
        self.encoder = Adapter(encoder, allow_pickle=allow_pickle)
        self.backbone = Adapter(backbone, allow_pickle=allow_pickle)
        for file in sorted([*encoder.iterdir(), *backbone.iterdir()]):
            if file.suffix in (".json", ".safetensors") and file.is_file():
                self.sources[str(file.relative_to(path))] = sha256(file)

    @property
    def encoder_spec(self) -> LoRASpec | None:
        return self.encoder.spec if self.encoder else None

    @property
    def backbone_spec(self) -> LoRASpec | None:
        return self.backbone.spec if self.backbone else None

    def factors(self, model: OMGSR) -> dict[str, Pending]:
        """Both adapters' factors by their names in the generator."""
        factors: dict[str, Pending] = {}
        for name, adapter, module in (
            ("vae.encoder", self.encoder, model.vae.encoder),
            ("backbone", self.backbone, model.backbone),
        ):
            if adapter:
                factors.update(_prefixed(name, adapter.plan_factors(module)))
        return factors


def _recipe_of(folder: DiffusersFolder) -> Recipe | None:
    if (folder.path / _RECIPE).is_file():
        path = folder.path / _RECIPE
        return build(Recipe, read_json(path), str(path))
    return recipes.recipe_of(folder.config("scheduler", "scheduler_config.json"))


def _write_part(folder: Path, config: Json, module: nnx.Module) -> None:
    params = {
        name: np.asarray(leaf[...])
        for name, leaf in variables(module).items()
        if not isinstance(leaf, nnx.LoRAParam)
    }
    _write_json(folder / "config.json", config)
    write_safetensors(folder / "diffusion_pytorch_model.safetensors", torch_state(params))


def _write_adapters(folder: Path, generator: OMGSRConfig, model: OMGSR) -> None:
    kind = backbones.of_config(generator.backbone)
    for name, spec, module in (
        (kind.encoder_adapter, generator.encoder_lora, model.vae.encoder),
        (kind.backbone_adapter, generator.backbone_lora, model.backbone),
    ):
        if spec:
            peft_adapters.write_adapter(folder / name, spec, module)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _prefixed(prefix: str, params: Mapping[str, Some]) -> dict[str, Some]:
    return {f"{prefix}.{name}": array for name, array in params.items()}
