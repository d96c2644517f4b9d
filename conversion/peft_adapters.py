"""peft adapter folders, as the published training code saves them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from omgsr_jax.descriptions import Json, build, read_json, several, shown
from omgsr_jax.errors import InputError
from omgsr_jax.models.lora import LoRASpec
from omgsr_jax.storage import Pending
from omgsr_jax.weights import variables

from .configs import listed
from .keymap import Spelling, plan_state, torch_state
from .tensor_files import open_tensors, write_safetensors

_PREFIX = "base_model.model."
_SPELLING = Spelling(rewrites=((f"^{re.escape(_PREFIX)}", ""),))
_STEM = "adapter_model"
CONFIG = "adapter_config.json"
FILES = (CONFIG, f"{_STEM}.safetensors")

_USED = ("r", "lora_alpha", "target_modules", "use_rslora")
_FIXED = {"peft_type": "LORA", "bias": "none"}
# Fields that say how an adapter was trained or saved, not what it computes.
_IGNORED = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
)


class Adapter:
    """An adapter in a folder: its config is read, and the headers of its weights, which follow."""

    def __init__(self, folder: Path, *, allow_pickle: bool = False):
        self.folder = folder
        self.spec = read_spec(folder)
        self._tensors = open_tensors(folder, _STEM, allow_pickle=allow_pickle)

    def plan_factors(self, abstract: nnx.Module) -> dict[str, Pending]:
        """The factors by name, each read when asked for.

        `abstract` is a model with shapes in place of arrays that carries the adapter.
        """
        return plan_state(
            self._tensors,
            nnx.state(abstract, nnx.LoRAParam),
            spelling=_SPELLING,
            headline=f"the adapter {self.folder} does not fit this base; was it trained on another "
            "one?",
            dtype=np.dtype("float32"),
        )


def read_spec(folder: Path) -> LoRASpec:
    """What adapter_config.json says; any feature that is switched on and unknown is an error."""
    path = folder / CONFIG
    config = read_json(path)
    absent = [field for field in ("r", "lora_alpha", "target_modules") if field not in config]
    if absent:
        raise InputError(f"{path} lacks {', '.join(absent)}; is it a LoRA adapter?")
    wrong = [
        f"{field} = {shown(value)}"
        for field, value in config.items()
        if field not in _USED
        and field not in _IGNORED
        and (value != _FIXED[field] if field in _FIXED else bool(value))
    ]
    if wrong:
        raise InputError(f"{path} asks for what is not supported: {several(wrong)}")
    targets = listed(config, "target_modules", str(path))
    fields = {
        "rank": config["r"],
        "alpha": config["lora_alpha"],
        "targets": sorted(targets),
        "rslora": config.get("use_rslora", False),
    }
    called = {"rank": "r", "alpha": "lora_alpha", "rslora": "use_rslora"}
    return build(LoRASpec, fields, str(path), called=called)


def read_factors(folder: Path, abstract: nnx.Module) -> dict[str, np.ndarray]:
    """The factors of the adapter in a folder; see `Adapter.plan_factors`."""
    planned = Adapter(folder).plan_factors(abstract)
    return {name: factor.read() for name, factor in planned.items()}


def write_adapter(folder: Path, spec: LoRASpec, model: nnx.Module) -> None:
    """Writes the adapter that `model` carries, as peft reads it."""
    factors = {
        name: np.asarray(leaf[...])
        for name, leaf in variables(model).items()
        if isinstance(leaf, nnx.LoRAParam)
    }
    folder.mkdir(parents=True)
    write_safetensors(
        folder / f"{_STEM}.safetensors",
        {f"{_PREFIX}{key}": tensor for key, tensor in torch_state(factors).items()},
    )
    (folder / CONFIG).write_text(json.dumps(_config_json(spec), indent=2) + "\n")


def _config_json(spec: LoRASpec) -> Json:
    config: dict[str, Any] = {
        **_FIXED,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "target_modules": list(spec.targets),
        "use_rslora": spec.rslora,
        "init_lora_weights": "gaussian",
        "inference_mode": True,
    }
    return dict(sorted(config.items()))


def find_adapter(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The sub-folder that holds an adapter under one of its published names."""
    return next((folder / name for name in names if (folder / name).is_dir()), None)
