"""The adapters of OMGSR's relatives: all in one file, as their training code saves it.

    hypir    the UNet's factors, by the names that diffusers' `add_adapter` gives them
    osediff  those of the UNet in three groups of layers, and its whole `conv_in`; those of the
             VAE's encoder and of `quant_conv`; the names of layers, and the ranks
    pisa-sr  two adapters on each of the UNet's layers, pix and sem, in three groups each

What is kept apart from the base is one adapter of the backbone and one of the encoder. The rest
changes the base itself, in fp32: osediff's `conv_in` and its adapter of `quant_conv`, and pisa-sr's
pix, on top of which its sem was trained.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from omgsr_jax.descriptions import checked, several
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR
from omgsr_jax.models.lora import SD_TARGETS, LoRASpec
from omgsr_jax.storage import Pending, Weight

from .backbones import Backbone
from .diffusers_folder import sha256
from .keymap import Spelling, plan_state, prefixed, to_jax
from .recipes import Adapted
from .tensor_files import LoadedTensors, Tensors, read_pickle, require_pickles_allowed

_MORE_TARGETS = ("proj_in", "proj_out", "ff.net.2", "ff.net.0.proj")
_UNET_TARGETS = tuple(sorted((*SD_TARGETS, *_MORE_TARGETS)))
_HYPIR_TARGETS = tuple(name for name in _UNET_TARGETS if name != "conv_in")
_ENCODER_TARGETS = tuple(sorted(SD_TARGETS))
_PEFT_ALPHA = 8.0  # that of a LoraConfig which is not told another
_GROUPS = ("encoder", "decoder", "others")
_FACTOR = re.compile(r"(?P<layer>.+)\.lora_(?P<half>[AB])\.(?P<adapter>\w+)\.weight")
_WHOLE = re.compile(r"(?P<layer>.+)\.base_layer\.(?P<leaf>weight|bias)")


@dataclass(frozen=True)
class Contents:
    """A file, sorted. Keys are a layer's, `<layer>.lora_A.weight`, and those of whole weights."""

    family: str
    backbone: Mapping[str, Any]
    backbone_spec: LoRASpec
    encoder: Mapping[str, Any] = field(default_factory=dict)
    encoder_spec: LoRASpec | None = None
    # By the part of the model: factors that are added to its weights, and weights in their place.
    folded: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    whole: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class OneFile:
    """The adapters in a file, for `convert`; see `adapters.Adapters`."""

    def __init__(self, path: Path, *, allow_pickle: bool = False):
        require_pickles_allowed(path, allow_pickle)
        self.path = path
        self._contents = _sorted(read_pickle(path), str(path))
        self.sources = {path.name: sha256(path)}

    @property
    def encoder_spec(self) -> LoRASpec | None:
        return self._contents.encoder_spec

    @property
    def backbone_spec(self) -> LoRASpec | None:
        return self._contents.backbone_spec

    @property
    def adapted(self) -> Adapted:
        contents = self._contents
        encoder = contents.encoder_spec.rank if contents.encoder_spec else 0
        return Adapted("unet", encoder, contents.backbone_spec.rank, contents.family)

    def require_kind(self, kind: Backbone, where: str) -> None:
        """All of them were trained on a UNet."""
        if kind.folder != self.adapted.backbone:
            raise InputError(
                f"{self.path} is for a UNet, and {where} has a {kind.network}: choose the base "
                "that it was trained on with --base"
            )

    def factors(self, model: OMGSR) -> dict[str, Pending]:
        """The factors that are kept apart, by their names in the generator."""
        contents = self._contents
        planned = prefixed("backbone", self._planned(contents.backbone, model.backbone))
        if contents.encoder:
            planned |= prefixed("vae.encoder", self._planned(contents.encoder, model.vae.encoder))
        return planned

    def _planned(self, factors: Mapping[str, Any], abstract: nnx.Module) -> dict[str, Pending]:
        return plan_state(
            self._tensors(factors),
            nnx.state(abstract, nnx.LoRAParam),
            spelling=Spelling(),
            headline=self._headline,
            dtype=np.dtype("float32"),
        )

    def changed(self, params: Mapping[str, Weight], dtype: np.dtype | None) -> dict[str, Pending]:
        """The base's weights that the adapters change for good, in fp32 or `dtype`."""
        stored = dtype or np.dtype("float32")
        changed: dict[str, Pending] = {}
        for part, weights in self._contents.whole.items():
            tensors = self._tensors(weights)
            for key in weights:
                name = re.sub(r"weight$", "kernel", f"{part}.{key}")
                read = partial(_in_our_layout, tensors, key, name)
                base = self._fitting(name, read().shape, params)
                changed[name] = Pending(base.shape, stored, partial(_cast, read, stored))
        for part, factors in self._contents.folded.items():
            tensors = self._tensors(factors)
            for layer in _layers(factors):
                name = f"{part}.{layer}.kernel"
                base = self._fitting(name, _delta_shape(tensors, layer, name), params)
                read = partial(_with_delta, base, tensors, layer, name)
                changed[name] = Pending(base.shape, stored, partial(_cast, read, stored))
        return changed

    def _fitting(self, name: str, shape: tuple[int, ...], params: Mapping[str, Weight]) -> Pending:
        """The base's weight of this name, which must have this shape."""
        found = params.get(name)
        if not isinstance(found, Pending) or found.shape != shape:
            there = "none" if found is None else f"of {found.shape}"
            raise InputError(
                f"{self._headline} It is of {shape} for {name}, and the base's is {there}."
            )
        return found

    def _tensors(self, tensors: Mapping[str, Any]) -> Tensors:
        return Tensors([LoadedTensors(self.path, tensors)])

    @property
    def _headline(self) -> str:
        return (
            f"the adapters in {self.path} do not fit this base; were they trained on another one?"
        )


def _in_our_layout(tensors: Tensors, key: str, name: str) -> np.ndarray:
    return to_jax(name, tensors.weight(key))


def _cast(read: Callable[[], np.ndarray], dtype: np.dtype) -> np.ndarray:
    return np.ascontiguousarray(read().astype(dtype))


def _factors(tensors: Tensors, layer: str, name: str) -> list[np.ndarray]:
    keys = (f"{layer}.lora_{half}.weight" for half in "AB")
    return [_in_our_layout(tensors, key, name).astype(np.float32) for key in keys]


def _delta_shape(tensors: Tensors, layer: str, name: str) -> tuple[int, ...]:
    a, b = _factors(tensors, layer, name)
    return (*a.shape[:-1], *b.shape[-1:])


def _with_delta(base: Pending, tensors: Tensors, layer: str, name: str) -> np.ndarray:
    """A kernel with what an adapter of peft's default alpha adds to it."""
    a, b = _factors(tensors, layer, name)
    delta: np.ndarray = a @ b
    return base.read().astype(np.float32) + _PEFT_ALPHA / a.shape[-1] * delta


def _sorted(content: Mapping[str, Any], where: str) -> Contents:
    """What a file holds, by the marks of each family."""
    for marks, read in _FAMILIES:
        if marks(content):
            return read(content, where)
    raise InputError(
        f"{where} holds the adapters of no recipe (omgsr convert --list): its keys are "
        f"{several(content) or 'none'}"
    )


def _hypir(content: Mapping[str, Any], where: str) -> Contents:
    factors, rest = _by_adapter(content)
    if rest or factors.keys() != {"default"}:
        raise _unknown(where, [*rest, *(factors.keys() - {"default"})])
    rank = _rank_of(factors["default"], where)
    spec = LoRASpec(rank, float(rank), _HYPIR_TARGETS)
    return Contents("hypir", factors["default"], spec)


def _osediff(content: Mapping[str, Any], where: str) -> Contents:
    unet, more = _by_adapter(_mapping(content, "state_dict_unet", where))
    vae, unknown = _by_adapter(_mapping(content, "state_dict_vae", where))
    (backbone,) = _together(unet, [[f"default_{group}" for group in _GROUPS]], where)
    (encoder,) = _together(vae, [["default_encoder"]], where)
    listed = _listed(content, [f"unet_lora_{group}_modules" for group in _GROUPS], where)
    _require_same(_layers(backbone), listed, where)
    _require_same(_layers(encoder), _listed(content, ["vae_lora_encoder_modules"], where), where)
    whole = {
        f"{found['layer']}.{found['leaf']}": tensor
        for key, tensor in more.items()
        if (found := _WHOLE.fullmatch(key))
    }
    if unknown or len(whole) < len(more):
        raise _unknown(where, [*unknown, *(key for key in more if not _WHOLE.fullmatch(key))])
    inside = {k.removeprefix("encoder."): v for k, v in encoder.items() if k[:8] == "encoder."}
    beside = {k: v for k, v in encoder.items() if k[:8] != "encoder."}
    return Contents(
        "osediff",
        backbone,
        LoRASpec(_rank(content, "rank_unet", where), _PEFT_ALPHA, _UNET_TARGETS),
        inside,
        LoRASpec(_rank(content, "rank_vae", where), _PEFT_ALPHA, _ENCODER_TARGETS),
        folded={"vae": beside},
        whole={"backbone": whole},
    )


def _pisa(content: Mapping[str, Any], where: str) -> Contents:
    factors, unknown = _by_adapter(_mapping(content, "state_dict_unet", where))
    if unknown:
        raise _unknown(where, unknown)
    names = [[f"default_{group}_{which}" for group in _GROUPS] for which in ("pix", "sem")]
    pix, sem = _together(factors, names, where)
    for which, found in (("pix", pix), ("sem", sem)):
        keys = [f"unet_lora_{group}_modules_{which}" for group in _GROUPS]
        _require_same(_layers(found), _listed(content, keys, where), where)
    rank = _rank(content, "lora_rank_unet_sem", where)
    return Contents(
        "pisa-sr", sem, LoRASpec(rank, _PEFT_ALPHA, _UNET_TARGETS), folded={"backbone": pix}
    )


_FAMILIES: tuple[tuple[Callable[[Mapping[str, Any]], bool], Any], ...] = (
    (lambda content: "lora_rank_unet_sem" in content, _pisa),
    (lambda content: "vae_lora_encoder_modules" in content, _osediff),
    (lambda content: bool(content) and all(map(_FACTOR.fullmatch, content)), _hypir),
)


def _by_adapter(state: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Factors by their adapter's name, and what are none."""
    factors: dict[str, dict[str, Any]] = {}
    rest = {}
    for key, tensor in state.items():
        if found := _FACTOR.fullmatch(key):
            of_adapter = factors.setdefault(found["adapter"], {})
            of_adapter[f"{found['layer']}.lora_{found['half']}.weight"] = tensor
        else:
            rest[key] = tensor
    return factors, rest


def _together(
    factors: Mapping[str, Mapping[str, Any]], names: list[list[str]], where: str
) -> list[dict[str, Any]]:
    """Adapters that are stored as several, each for a group of layers of its own."""
    if unknown := factors.keys() - {name for groups in names for name in groups}:
        raise _unknown(where, sorted(unknown))
    found = [
        {k: v for name in groups for k, v in factors.get(name, {}).items()} for groups in names
    ]
    for one in found:
        _require_pairs(one, where)
    return found


def _require_pairs(factors: Mapping[str, Any], where: str) -> None:
    keys = {f"{layer}.lora_{half}.weight" for layer in _layers(factors) for half in "AB"}
    if lost := sorted(keys - factors.keys()):
        raise InputError(f"{where} is damaged: it lacks {several(lost)}. Fetch it again.")


def _layers(factors: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(key.rpartition(".lora_")[0] for key in factors))


def _mapping(content: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = checked(Mapping[str, Any], content.get(key), where, key)
    return found


def _listed(content: Mapping[str, Any], keys: list[str], where: str) -> set[str]:
    lists = (checked(tuple[str, ...], content.get(key), where, key) for key in keys)
    return {name for one in lists for name in one}


def _rank(content: Mapping[str, Any], key: str, where: str) -> int:
    rank: int = checked(int, content.get(key), f"{where}: {key}", "rank")
    return rank


def _rank_of(factors: Mapping[str, Any], where: str) -> int:
    """A file that does not say it: the rows of its first A."""
    first = next((value for key, value in factors.items() if ".lora_A." in key), None)
    shape = getattr(first, "shape", ())
    rank: int = checked(int, shape[0] if shape else None, where, "rank")
    return rank


def _require_same(layers: list[str], listed: set[str], where: str) -> None:
    if apart := sorted(listed ^ {*layers}):
        raise InputError(
            f"{where} is damaged: {several(apart)} is listed and has no factors, or has some and "
            "is not listed. Fetch it again."
        )


def _unknown(where: str, names: Any) -> InputError:
    return InputError(f"{where} holds what is not known here: {several(names)}")
