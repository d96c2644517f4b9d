"""Converted models with something wrong with them; bases.py has diffusers folders.

`write_originals` makes the small whole ones that the cases damage copies of.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from conversion.export import export
from omgsr_jax import converted
from omgsr_jax.models.lora import LoRASpec

from ..stand_in import write_stand_in
from .edits import (
    GONE,
    NOT_JSON,
    SAME_JSON,
    Case,
    cases,
    dangling,
    empty,
    file_for_folder,
    flipped,
    folder,
    half,
    link,
    longer,
    loop,
    missing,
    of,
    pipe,
    put,
    text,
)

CARD = "omgsr.json"
MANIFEST = "params/manifest.ocdbt"
METADATA = "params/_METADATA"


def write_originals(root: Path) -> tuple[Path, Path]:
    """A converted model with adapters, and the folder that it is exported to."""
    model = write_stand_in(
        root / "model", process_size=64, adapters=LoRASpec(2, 2, targets=("conv_in", "to_q"))
    )
    export(model, root / "base")
    return model, root / "base"


# Converted models.


def _data(root: Path, edit: Any, *, largest: bool) -> None:
    """A file of the weights: the largest, which holds them, or the smallest, which finds them."""
    files = sorted(root.glob("params/**/d/*"), key=lambda path: (path.stat().st_size, path.name))
    edit(files[-1 if largest else 0])


def _files(change: Any) -> Any:
    def edit(root: Path) -> None:
        card = json.loads((root / CARD).read_text())
        change(card["files"])
        (root / CARD).write_text(json.dumps(card))

    return edit


def without_digests(root: Path) -> None:
    put("files", ...)(root / CARD)


def _undigested(edit: Any) -> Any:
    """As an earlier version wrote it, and damaged then."""

    def both(root: Path) -> None:
        without_digests(root)
        edit(root)

    return both


def _lists(name: str, **fields: Any) -> Any:
    return _files(lambda files: files.update({name: {"bytes": 4, "sha256": "0" * 64} | fields}))


def _whole_numbers(root: Path) -> None:
    """The model again, one of its weights in whole numbers."""
    weights = converted.by_name_on_host(root)
    card = converted.read_card(root)
    weights["vae.decoder.conv_in.bias"] = np.ones_like(
        weights["vae.decoder.conv_in.bias"], np.int32
    )
    shutil.rmtree(root)
    converted.write(root, card, weights)


_FIELDS: list[tuple[str, Any]] = [
    ("format", 2),
    ("format", "1"),
    ("format", {"x" * 80 + str(i): "y" * 80 for i in range(9)}),
    ("format", ...),
    ("generator", ...),
    ("generator", None),
    ("generator", []),
    ("process_size", 0),
    ("process_size", "512"),
    ("process_size", 10**9),
    ("process_size", 1.5),
    ("prompt", None),
    ("sources", ["a"]),
    ("sources", {"a": 1}),
    ("surprise", 1),
    ("generator.surprise", 1),
    ("generator.mid_timestep", -1),
    ("generator.mid_timestep", 10**9),
    ("generator.mid_timestep", "195"),
    ("generator.mid_timestep", True),
    ("generator.adaptive", 3),
    ("generator.adaptive", {"width": 0}),
    ("generator.adaptive", {"width": 10**9}),
    ("generator.adaptive", {"widths": [8]}),
    ("generator.prompt_shapes", {}),
    ("generator.prompt_shapes", {"context": 8}),
    ("generator.prompt_shapes", {"context": [1, 9]}),
    ("generator.prompt_shapes", {"context": [10**12, 8]}),
    ("generator.prompt_shapes", {"other": [1, 8]}),
    ("generator.vae", None),
    ("generator.vae.layers_per_block", 2000),
    ("generator.vae.layers_per_block", "8"),
    ("generator.vae.layers_per_block", None),
    ("generator.vae.layers_per_block", ...),
    ("generator.vae.block_out_channels", []),
    ("generator.vae.block_out_channels", 8),
    ("generator.vae.block_out_channels", [8, 8, -16]),
    ("generator.vae.block_out_channels", [8, 8, 10**9]),
    ("generator.vae.block_out_channels", [8] * 40),
    ("generator.vae.norm_num_groups", 0),
    ("generator.vae.scaling_factor", 0),
    ("generator.vae.scaling_factor", "0.18"),
    ("generator.vae.scaling_factor", 10**400),
    ("generator.vae.use_quant_conv", "yes"),
    ("generator.vae.more", 1),
    ("generator.backbone.kind", "unet3"),
    ("generator.backbone.kind", ["unet"]),
    ("generator.backbone.kind", ...),
    ("generator.backbone.attention", [False, 1, True]),
    ("generator.backbone.heads", [1, 1]),
    ("generator.backbone.heads", [0, 0, 0]),
    ("generator.backbone.transformer_depth", [10**9, 1, 1]),
    ("generator.backbone.cross_attention_dim", {}),
    ("generator.process.kind", "ddim"),
    ("generator.process.timesteps", 10**10),
    ("generator.process.beta_start", -1.0),
    ("generator.encoder_lora", 4),
    ("generator.encoder_lora.rank", 0),
    ("generator.encoder_lora.rank", "8"),
    ("generator.encoder_lora.rank", None),
    ("generator.encoder_lora.rank", 10**9),
    ("generator.encoder_lora.alpha", "16"),
    ("generator.encoder_lora.alpha", 0),
    ("generator.encoder_lora.targets", "conv_in"),
]
# What only shows when the weights are at hand, and the words for it.
_MISFITS: list[tuple[str, Any, str]] = [
    ("generator.encoder_lora", None, "too many"),
    ("generator.encoder_lora.rank", 4, "expected (3, 3, 3, 4)"),
    ("generator.encoder_lora.targets", ["none"], "match 0 layers"),
    ("generator.vae.layers_per_block", 2, "are missing"),
    ("generator.vae.block_out_channels", [8, 8, 32], "has the shape"),
    ("generator.vae.norm_num_groups", 3, "cannot be normalised in 3 groups"),
    ("generator.backbone.in_channels", 8, "in_channels must be 4"),
    ("generator.prompt_shapes", {"context": [2, 8]}, "expected (2, 8)"),
]


# Where another word is due than the field's name.
_WORDS = {
    ("prompt_shapes", "{}"): ("the prompt must have embeddings called context, not none",),
    ("prompt_shapes", "{'context': [1, 9]}"): ("context must have 2 axes, the last of 8",),
    ("prompt_shapes", "{'other': [1, 8]}"): ("the prompt must have embeddings called context",),
}


def _of_the_card() -> list[Case]:
    found = list(cases("card", NOT_JSON, CARD))
    for dotted, value in _FIELDS:
        what = "taken out" if value is ... else str(value)[:30]
        last = dotted.rpartition(".")[2]
        words = _WORDS.get((last, str(value)[:30]), (last,))
        found.append(Case(f"{dotted}: {what}", of(CARD, put(dotted, value)), (*words, CARD)))
    for dotted, value, words in _MISFITS:
        name = f"{dotted}: {value} does not fit"
        found.append(Case(name, of(CARD, put(dotted, value)), (words,)))
    found += [Case(f"card: {what}", of(CARD, edit), (CARD,)) for what, edit in GONE.items()]
    found += [
        Case("card: pipe", of(CARD, pipe), (CARD, "a pipe")),
        Case("card: its files are a list", _files_are([]), ("files", CARD)),
        Case("card: its files are null", _files_are(None), ("files is None", CARD)),
        Case("card: its files are none", _files_are({}), ("lists nothing below params/", CARD)),
        Case("card: a file outside", _lists("params/../../x"), ("not inside the folder",)),
        Case("card: a file elsewhere", _lists("params/x"), ("params/x is not there",)),
        Case("card: a file of a long name", _lists("params/" + "x" * 9999), ("not inside",)),
        Case("card: a file of no name", _lists("params/\x00"), ("cannot be read",)),
        Case("card: an absolute file", _lists("/dev/zero"), ("not inside the folder",)),
        Case("card: a file of -1 bytes", _lists("params/x", bytes=-1), ("bytes is -1",)),
        Case("card: a short sha256", _lists("params/x", sha256="12"), ("sha256 of 2 characters",)),
        Case("card: a file without sha256", _lists("params/x", sha256=None), ("sha256 is None",)),
    ]
    return found


def _files_are(value: Any) -> Any:
    return of(CARD, put("files", value))


def _of_the_weights() -> list[Case]:
    found = []
    for name in (MANIFEST, METADATA):
        for edit in (missing, empty, half, longer, flipped, folder, loop, dangling, pipe):
            found.append(Case(f"{name}: {edit.__name__}", of(name, edit), (name,)))
    for edit in (missing, empty, half, longer, flipped, folder):
        for largest in (True, False):
            which = "largest" if largest else "smallest"
            case = Case(
                f"{which} data file: {edit.__name__}",
                lambda root, edit=edit, largest=largest: _data(root, edit, largest=largest),
                ("/d/",),
            )
            found.append(case)
    found += [
        Case("no weights", lambda root: shutil.rmtree(root / "params"), ("params",)),
        Case("a file for the weights", of("params", file_for_folder), ("params",)),
        Case("whole numbers for weights", _whole_numbers, ("int32",)),
    ]
    for name, what, edit in (
        (MANIFEST, "missing", missing),
        (MANIFEST, "empty", empty),
        (MANIFEST, "half", half),
        (METADATA, "empty", empty),
        (METADATA, "missing", missing),
        (METADATA, "deep", text(b"[" * 100_000)),
        (METADATA, "of nothing", text(b"{}")),
    ):
        damaged = _undigested(of(name, edit))
        found.append(
            Case(f"undigested, {name}: {what}", damaged, ("params cannot be read as weights",))
        )
    damaged = _undigested(lambda root: _data(root, half, largest=True))
    found.append(Case("undigested, data file: half", damaged, ("cannot be read",)))
    return found


def _whole() -> list[Case]:
    """Changes that are none."""
    return [
        *(Case(f"card: {what}", of(CARD, edit)) for what, edit in SAME_JSON.items()),
        Case("card: behind a link", of(CARD, link)),
        Case("weights: behind a link", of(MANIFEST, link)),
        Case("undigested", of(CARD, put("files", ...))),
        Case("more files", lambda root: (root / "params" / ".DS_Store").write_bytes(b"x")),
    ]


CONVERTED = [*_of_the_card(), *_of_the_weights(), *_whole()]
