"""Diffusers folders with something wrong with them, to convert. `write_originals` makes the whole
one that the cases damage copies of (models.py)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from .edits import (
    GONE,
    MISFITS,
    NOT_JSON,
    NOT_TENSORS,
    SAME_JSON,
    Case,
    cases,
    file_for_folder,
    folder,
    half,
    link,
    missing,
    of,
    pipe,
    put,
    tensors,
    then,
)

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
UNET_CONFIG, VAE_CONFIG = "unet/config.json", "vae/config.json"
SCHEDULER = "scheduler/scheduler_config.json"
EMBEDDINGS, RECIPE = "prompt_embeds.safetensors", "recipe.json"
INDEX = f"{UNET}.index.json"

_UNET_FIELDS: list[tuple[str, Any]] = [
    ("layers_per_block", 2000),
    ("layers_per_block", "2"),
    ("layers_per_block", [2, 2, 2]),
    ("layers_per_block", 10**400),
    ("block_out_channels", 320),
    ("block_out_channels", [16, 16, 10**9]),
    ("block_out_channels", ["a", "b", "c"]),
    ("block_out_channels", ...),
    ("attention_head_dim", None),
    ("attention_head_dim", 0),
    ("attention_head_dim", [1, 1]),
    ("attention_head_dim", 7),
    ("attention_head_dim", [7] * 900),
    ("down_block_types", "DownBlock2D"),
    ("down_block_types", [["DownBlock2D"]] * 3),
    ("down_block_types", [None] * 3),
    ("up_block_types", {}),
    ("up_block_types", []),
    ("transformer_layers_per_block", 10**6),
    ("cross_attention_dim", [8]),
    ("cross_attention_dim", 1.5),
    ("use_linear_projection", "true"),
    ("norm_num_groups", None),
    ("norm_num_groups", 7),
    ("norm_eps", "1e-5"),
    ("norm_eps", -1),
    ("flip_sin_to_cos", 1),
    ("in_channels", 5),
    ("act_fn", {"a": [1] * 50_000}),
    ("x" * 100_000, 1),
]
_VAE_FIELDS: list[tuple[str, Any]] = [
    ("layers_per_block", 2000),
    ("layers_per_block", True),
    ("block_out_channels", None),
    ("down_block_types", 3),
    ("latent_channels", 0),
    ("latent_channels", "4"),
    ("latent_channels", 10**7),
    ("scaling_factor", 0),
    ("scaling_factor", None),
    ("shift_factor", "0"),
    ("use_quant_conv", None),
]
_SCHEDULER_FIELDS: list[tuple[str, Any]] = [
    ("beta_start", "0.00085"),
    ("beta_start", None),
    ("beta_end", 2),
    ("num_train_timesteps", 10**12),
    ("num_train_timesteps", 1000.5),
    ("prediction_type", ["epsilon"]),
]
_RECIPE_FIELDS: list[tuple[str, Any]] = [
    ("mid_timestep", "64"),
    ("mid_timestep", 1000),
    ("process_size", -1),
    ("process_size", 10**6),
    ("prompt", ["a"]),
    ("name", ...),
    ("more", 1),
]


def _sharded(change: Any = None) -> Any:
    """The backbone's weights as a shard with an index, and what is changed about that."""

    def edit(root: Path) -> None:
        shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
        (root / UNET).rename(root / "unet" / shard)
        with safe_open(root / "unet" / shard, "np") as file:
            names = list(file.keys())
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
        if change:
            change(index)
        (root / INDEX).write_text(json.dumps(index))

    return edit


def _of_shards() -> list[Case]:
    changes: list[tuple[str, Any, str]] = [
        ("no map", lambda index: index.pop("weight_map"), "it has no weight_map"),
        ("a list", lambda index: index.update(weight_map=[]), "weight_map is []"),
        ("numbers", lambda index: index.update(weight_map={"a": 1}), "weight_map.a is 1"),
        ("lost", lambda index: index.update(weight_map={"a": "b"}), "not there: b"),
        ("outside", lambda index: index.update(weight_map={"a": "../vae/x"}), "not beside it"),
        ("absolute", lambda index: index.update(weight_map={"a": "/dev/zero"}), "not beside it"),
        ("long", lambda index: index.update(weight_map={"a": "x" * 999}), "not there: 'xxx"),
        ("zero", lambda index: index.update(weight_map={"a": "\x00"}), "not there"),
        ("no name", lambda index: index.update(weight_map={"a": ""}), "not beside it"),
        ("none", lambda index: index.update(weight_map={}), "keys missing"),
        ("lies", lambda index: index["weight_map"].update(more=min(index["weight_map"].values())),
         "no shard has: more"),
    ]  # fmt: skip
    found = [Case(f"shards: {what}", _sharded(edit), (words,)) for what, edit, words in changes]
    for what in ("half", "deep", "utf-16"):
        edit, words = NOT_JSON[what]
        found.append(Case(f"shards: index {what}", then(_sharded(), edit, INDEX), (words, INDEX)))
    return [*found, Case("shards", _sharded())]


# Where another word is due than the field's name.
_WORDS = {
    ("attention_head_dim", "7"): ("cannot be divided among 7 heads",),
    ("attention_head_dim", "[1, 1]"): ("must have 3 values",),
    ("attention_head_dim", str([7] * 900)[:30]): ("must have 3 values",),
    ("norm_num_groups", "7"): ("cannot be normalised in 7 groups",),
    ("mid_timestep", "1000"): ("mid-timestep must be within 0 .. 999",),
}


def _of_fields() -> list[Case]:
    found = []
    for name, fields in (
        (UNET_CONFIG, _UNET_FIELDS),
        (VAE_CONFIG, _VAE_FIELDS),
        (SCHEDULER, _SCHEDULER_FIELDS),
        (RECIPE, _RECIPE_FIELDS),
    ):
        for field, value in fields:
            what = "taken out" if value is ... else str(value)[:30]
            words = _WORDS.get((field, str(value)[:30]), (field[:20],))
            case = Case(f"{name} {field[:30]}: {what}", of(name, put(field, value)), words)
            found.append(case)
    return found


def _deep_and_long(path: Path) -> None:
    put("layers_per_block", 32)(path)
    put("transformer_layers_per_block", [64] * 3)(path)


def _wrong_embeddings(**named: np.ndarray) -> Any:
    return of(EMBEDDINGS, tensors(lambda t: (t.clear(), t.update(named))))


def _of_files() -> list[Case]:
    found = []
    for name in (UNET_CONFIG, VAE_CONFIG, SCHEDULER):
        found += cases(name, NOT_JSON, name)
        found += [Case(f"{name}: {what}", of(name, edit), (name,)) for what, edit in GONE.items()]
        found.append(Case(f"{name}: pipe", of(name, pipe), (name,)))
    found += cases(UNET, NOT_TENSORS, UNET)
    found += [
        Case(f"{UNET}: {what}", of(UNET, edit), (words, "unet do not fit their config"))
        for what, (edit, words) in MISFITS.items()
    ]
    found += [Case(f"{UNET}: {what}", of(UNET, edit), ("unet",)) for what, edit in GONE.items()]
    found += [
        Case("weights: pipe", of(VAE, pipe), (VAE,)),
        Case("thousands of layers", of(UNET_CONFIG, _deep_and_long), ("at most 1000",)),
        Case("unet/ is a file", of("unet", file_for_folder), ("unet",)),
        Case("embeddings: half", of(EMBEDDINGS, half), (EMBEDDINGS, "not a whole")),
        Case("embeddings: missing", of(EMBEDDINGS, missing), ("text_encoder",)),
        Case("embeddings: folder", of(EMBEDDINGS, folder), (EMBEDDINGS, "a folder")),
        Case("embeddings: renamed", _wrong_embeddings(x=np.ones((1, 8), np.float32)), ("context",)),
        Case(
            "embeddings: wide",
            _wrong_embeddings(context=np.ones((1, 9), np.float32)),
            ("context must have 2 axes",),
        ),
        Case(
            "embeddings: nan",
            _wrong_embeddings(context=np.full((1, 8), np.nan, np.float32)),
            (EMBEDDINGS, "not finite"),
        ),
        Case(
            "embeddings: whole numbers",
            _wrong_embeddings(context=np.ones((1, 8), np.int32)),
            (EMBEDDINGS, "floating-point"),
        ),
    ]
    return found


def _whole() -> list[Case]:
    return [
        Case("config: bom", of(UNET_CONFIG, SAME_JSON["bom"])),
        Case("weights: behind a link", of(UNET, link)),
        Case("more files", lambda root: (root / "model_index.json").write_text("not json")),
    ]


BASES = [*_of_fields(), *_of_files(), *_of_shards(), *_whole()]
