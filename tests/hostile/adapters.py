"""Adapters with something wrong with them, to convert onto a base that is whole."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file

from .edits import (
    GONE,
    MISFITS,
    NOT_JSON,
    NOT_TENSORS,
    SAME_JSON,
    Case,
    cases,
    file_for_folder,
    half,
    link,
    of,
    pipe,
    put,
    then,
)

CONFIG = "unet_lora_adapter/adapter_config.json"
WEIGHTS = "unet_lora_adapter/adapter_model.safetensors"
PICKLE = "unet_lora_adapter/adapter_model.bin"

_FIELDS: list[tuple[str, Any]] = [
    ("r", 0),
    ("r", -4),
    ("r", "8"),
    ("r", None),
    ("r", 10**9),
    ("r", 10**400),
    ("r", True),
    ("r", 1.5),
    ("r", 2.0),
    ("r", [2]),
    ("r", ...),
    ("lora_alpha", "16"),
    ("lora_alpha", None),
    ("lora_alpha", 0),
    ("lora_alpha", -1),
    ("lora_alpha", False),
    ("lora_alpha", 10**400),
    ("lora_alpha", {}),
    ("lora_alpha", ...),
    ("target_modules", "all-linear"),
    ("target_modules", None),
    ("target_modules", 3),
    ("target_modules", [1, 2]),
    ("target_modules", [["conv_in"]]),
    ("target_modules", {"conv_in": 1}),
    ("target_modules", ...),
    ("use_rslora", "yes"),
    ("use_rslora", 1),
    ("use_dora", True),
    ("rank_pattern", {"conv_in": 4}),
    ("alpha_pattern", {"a": [1] * 50_000}),
    ("peft_type", "LOHA"),
    ("peft_type", None),
    ("bias", "all"),
    ("modules_to_save", ["conv_out"]),
    ("surprise", "x" * 100_000),
]
# What is no mistake of the config alone, and the words for it.
_MISFITS: list[tuple[str, Any, str]] = [
    ("target_modules", [], "match 0 layers"),
    ("target_modules", [""], "match 0 layers"),
    ("target_modules", ["none"] * 5000, "match 0 layers"),
    ("target_modules", ["conv_in"], "not known here"),
    ("target_modules", ["conv_in", "to_q", "to_k"], "missing"),
    ("r", 4096, "of the wrong shape"),
    ("r", 4, "of the wrong shape"),
]


def _text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _of_numbers_that_are_none() -> list[Case]:
    return [
        Case(
            f"lora_alpha: {word}",
            lambda root, word=word: _text(
                root / CONFIG, '"lora_alpha": 2', f'"lora_alpha": {word}'
            ),
            (words, CONFIG),
        )
        for word, words in (
            ("NaN", "NaN is no number"),
            ("Infinity", "Infinity is no number"),
            ("1e999", "too large a number"),
            ("0x10", "not valid JSON"),
        )
    ]


class _Harmful:
    """What a pickle may do: it runs code when it is opened."""

    def __reduce__(self) -> Any:
        return (print, ("harmful",))


def _pickled(change: Any = None) -> Any:
    """The weights as a pickle, and what it holds instead."""

    def edit(root: Path) -> None:
        tensors: Any = {k: torch.from_numpy(v) for k, v in load_file(root / WEIGHTS).items()}
        (root / WEIGHTS).unlink()
        torch.save(change(tensors) if change else tensors, root / PICKLE)

    return edit


def _of_pickles() -> list[Case]:
    def each(change: Any) -> Any:
        return _pickled(lambda tensors: {name: change(t) for name, t in tensors.items()})

    return [
        Case("pickle: half", then(_pickled(), half, PICKLE), (PICKLE,)),
        Case("pickle: code", _pickled(lambda t: {"a": _Harmful()}), (PICKLE, "weights_only")),
        Case("pickle: a list", _pickled(lambda t: list(t.values())), (PICKLE, "dict of tensors")),
        Case("pickle: a number", _pickled(lambda t: 3), (PICKLE, "dict of tensors")),
        Case("pickle: nested", _pickled(lambda t: {"state": t}), (PICKLE, "dict of tensors")),
        Case("pickle: empty", _pickled(lambda t: {}), ("missing",)),
        Case("pickle: numbers", each(lambda t: 3), (PICKLE, "dict of tensors")),
        Case("pickle: sparse", each(torch.Tensor.to_sparse), (PICKLE, "dict of tensors")),
        Case("pickle: whole numbers", each(torch.Tensor.int), ("int32",)),
        Case("pickle: nan", each(lambda t: t * math.nan), (PICKLE, "not finite")),
    ]


def _swapped(root: Path) -> None:
    """The encoder's adapter in the place of the backbone's, and the other way round."""
    one, other, aside = root / "unet_lora_adapter", root / "vae_encoder_lora_adapter", root / "x"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def _reordered(root: Path) -> None:
    content = json.loads((root / CONFIG).read_text())
    content["target_modules"].reverse()
    content["peft_version"] = {"is": ["ignored"]}
    (root / CONFIG).write_text(json.dumps(dict(reversed(content.items()))))


def _all() -> list[Case]:
    found = [
        Case(
            f"{field}: {'taken out' if value is ... else str(value)[:30]}",
            of(CONFIG, put(field, value)),
            (field, CONFIG),
        )
        for field, value in _FIELDS
    ]
    found += [
        Case(f"{field}: {str(value)[:30]} does not fit", of(CONFIG, put(field, value)), (words,))
        for field, value, words in _MISFITS
    ]
    found += cases("config", NOT_JSON, CONFIG)
    found += cases("weights", NOT_TENSORS, WEIGHTS)
    found += [
        Case(f"weights: {what}", of(WEIGHTS, edit), (words, "does not fit this base"))
        for what, (edit, words) in MISFITS.items()
    ]
    for name in (CONFIG, WEIGHTS):
        words = (name,) if name == CONFIG else ("unet_lora_adapter",)
        found += [Case(f"{name}: {what}", of(name, edit), words) for what, edit in GONE.items()]
        found.append(Case(f"{name}: pipe", of(name, pipe), (name,)))
    found += _of_numbers_that_are_none()
    found += _of_pickles()
    found += [
        Case("a file for the folder", of("unet_lora_adapter", file_for_folder), ("sub-folders",)),
        Case("one of two", of("unet_lora_adapter", shutil.rmtree), ("sub-folders",)),
        Case("swapped", _swapped, ("does not fit this base",)),
        # Nothing is wrong with these.
        Case("config: bom", of(CONFIG, SAME_JSON["bom"])),
        Case("config: reordered", _reordered),
        Case("weights: behind a link", of(WEIGHTS, link)),
        Case("pickle", _pickled()),
    ]  # fmt: skip
    return found


ADAPTERS = _all()
