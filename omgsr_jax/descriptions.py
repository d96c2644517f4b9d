"""Descriptions in JSON: cards, configs, headers. Whoever wrote them, they are read with suspicion.

`read_json` reads a file, `build` makes a frozen config of what is in it. A value of another type or
out of its range, a field too many or too few, is one sentence that names the file and the field.
"""

import dataclasses
import json
import math
import os
import reprlib
import stat
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from etils import epath

from . import buckets
from .errors import InputError

Json = dict[str, Any]
Config = TypeVar("Config")

_MOST_BYTES = 2**26
_LISTED = 5
_LONGEST_NAME, _LONGEST_VALUE, _LONGEST_REASON = 80, 120, 240
_short = reprlib.Repr()
_short.maxlevel, _short.maxlist, _short.maxstring = 2, 8, _LONGEST_NAME

# The range of a number, by the name of its field: far beyond all networks that are known, and far
# below what would occupy a machine before its weights turn out not to fit.
_COUNT, _REAL = (1, 2**20), (-1e6, 1e6)
_WIDTH = (1, 2**15)
_EPSILON = (1e-20, 0.1)
_RANGES: Mapping[str, tuple[float, float]] = {
    "alpha": (1e-6, 1e6),
    "base_shift": (-20, 20),
    "beta_end": (1e-9, 0.999),
    "beta_start": (1e-9, 0.999),
    "block_out_channels": _WIDTH,
    "branch_width": _WIDTH,
    "bytes": (0, 2**50),
    "cross_attention_dim": _WIDTH,
    "d_ff": (1, 2**18),
    "data_offsets": (0, 2**50),
    "depths": (1, 256),
    "eos_token_id": (0, 2**31),
    "freq_shift": (0, 1),
    "heads": (1, 2**10),
    "hidden_size": _WIDTH,
    "hidden_sizes": _WIDTH,
    "in_channels": (1, 2**12),
    "intermediate_size": (1, 2**18),
    "latent_channels": (1, 2**10),
    "layer_norm_eps": _EPSILON,
    "layer_norm_epsilon": _EPSILON,
    "layers_per_block": (1, 32),
    "max_shift": (-20, 20),
    "mid_timestep": (0, 2**20),
    "mlp_ratio": (1e-3, 100),
    "norm_eps": _EPSILON,
    "num_heads": (1, 2**10),
    "num_attention_heads": (1, 2**10),
    "num_hidden_layers": (1, 256),
    "num_layers": (1, 256),
    "num_single_layers": (1, 256),
    "out_channels": (1, 2**12),
    "patch": (1, 64),
    "process_size": (8, 2**14),
    "rank": (1, 2**12),
    "shape": (0, 2**40),
    "scaling_factor": (1e-6, 1e6),
    "tile_overlap": (0, 2**14),
    "tile_size": (8, 2**14),
    "timesteps": (2, 10**5),
    "transformer_depth": (0, 64),
    "vocab_size": (1, 2**24),
    "width": _WIDTH,
    "widths": _WIDTH,
}


def read_json(path: str | os.PathLike[str]) -> Json:
    """The object in a file. It is UTF-8, with or without a byte order mark."""
    return parse_json(_content(path), os.fspath(path))


def parse_json(data: bytes, where: str) -> Json:
    """The object that `data` holds; `where` it is, for messages."""
    try:
        text = data.decode("utf-8-sig")
        content = json.loads(
            text, object_pairs_hook=_no_key_twice, parse_constant=_no_number, parse_float=_finite
        )
    except UnicodeDecodeError:
        raise InputError(f"{where} is not valid JSON: it is not text in UTF-8") from None
    except RecursionError:
        raise InputError(f"{where} is not valid JSON: it is nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{where} holds a {type(content).__name__}, expected a JSON object")
    return content


def _no_key_twice(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} is there twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{shown(text)} is too large a number")
    return value


def _content(path: str | os.PathLike[str]) -> bytes:
    if buckets.is_remote(path):
        try:
            return epath.Path(path).read_bytes()
        except FileNotFoundError:
            raise InputError(f"{path} is not there") from None
        except Exception as error:
            raise InputError(f"{path} cannot be read: {buckets.reason(error)}") from error
    if (size := file_size(path)) > _MOST_BYTES:
        raise InputError(f"{path} has {size} bytes, which is too much for a description")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def file_size(path: str | os.PathLike[str]) -> int:
    """The size of a file; whatever is none is refused: opening a pipe could wait for ever."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise InputError(f"{path} is not there") from None
    except (OSError, ValueError) as error:  # a loop of links, a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {reason}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise InputError(f"{path} is {kind}, expected a file")
    return status.st_size


def first_line(error: Exception) -> str:
    """What another part of the program found wrong, for a message."""
    return (str(error) or repr(error)).splitlines()[0][:_LONGEST_REASON]


def shown(value: Any) -> str:
    """A value for a message: Python's spelling, cut where it is long."""
    text = _short.repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} ..."


def several(names: Iterable[Any]) -> str:
    """A few names for a message, and how many more there are."""
    texts = [name if len(name) <= _LONGEST_NAME else shown(name) for name in map(str, names)]
    more = len(texts) - _LISTED
    return ", ".join(texts[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def build(
    kind: type[Config],
    content: Any,
    where: str,
    *,
    called: Mapping[str, str] | None = None,
    kinds: Mapping[str, type] | None = None,
) -> Config:
    """A frozen config of class `kind`, from all of its fields as JSON has them.

    Args:
        kind: its fields' annotations say what is expected.
        content: the fields' values; those whose metadata says `stored: False` are left out.
        where: what a message begins with.
        called: what the file calls a field, where it is not the field's own name.
        kinds: the classes that a field of several may have, by what stands as "kind".
    """
    built: Config = _Reader(where, called or {}, kinds or {}).config(kind, content, "")
    return built


def checked(annotation: Any, value: Any, where: str, name: str) -> Any:
    """`value` as `annotation` has it (a list as a tuple), or an error about the field `name`."""
    return _Reader(where, {}, {}).value(annotation, value, name, name)


@dataclasses.dataclass(frozen=True)
class _Reader:
    where: str
    called: Mapping[str, str]
    kinds: Mapping[str, type]

    def config(self, kind: Any, content: Any, name: str) -> Any:
        if not isinstance(content, Mapping):
            raise self.wrong(name, content, "an object")
        prefix = f"{name}." if name else ""
        hints = _annotations(kind)
        unknown = sorted(content.keys() - hints.keys())
        if unknown:
            raise InputError(f"{self.where}: {prefix}{several(unknown)} is not known here")
        lost = [self.called.get(field, field) for field in hints if field not in content]
        if lost:
            raise InputError(f"{self.where}: {prefix}{several(lost)} is missing")
        values = {
            field: self.value(hint, content[field], prefix + self.called.get(field, field), field)
            for field, hint in hints.items()
        }
        try:
            return kind(**values)
        except ValueError as error:
            about = f"{name}: " if name else ""
            raise InputError(f"{self.where}: {about}{first_line(error)}") from error

    def value(self, annotation: Any, value: Any, name: str, field: str) -> Any:
        origin, inner = get_origin(annotation), get_args(annotation)
        if annotation is Any:
            return value
        if origin in (Union, UnionType):
            return self.one_of(inner, value, name, field)
        if dataclasses.is_dataclass(annotation):
            return self.config(annotation, value, name)
        if origin is tuple:
            return self.several_of(inner, value, name, field)
        if origin is not None:  # Mapping[str, ...]
            if not isinstance(value, Mapping):
                raise self.wrong(name, value, "an object")
            return {
                key: self.value(inner[1], item, f"{name}.{shown(key)[1:-1]}", field)
                for key, item in value.items()
            }
        return self.plain(annotation, value, name, field)

    def one_of(self, among: tuple[Any, ...], value: Any, name: str, field: str) -> Any:
        classes = [one for one in among if one is not NoneType]
        if value is None and NoneType in among:
            return None
        if len(classes) == 1:
            return self.value(classes[0], value, name, field)
        named = {key: kind for key, kind in self.kinds.items() if kind in classes}
        if not isinstance(value, Mapping):
            raise self.wrong(name, value, "an object")
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in named:
            raise self.wrong(f"{name}.kind", kind, " or ".join(map(repr, named)))
        rest = {key: item for key, item in value.items() if key != "kind"}
        return self.config(named[kind], rest, name)

    def several_of(self, inner: tuple[Any, ...], value: Any, name: str, field: str) -> Any:
        if not isinstance(value, list | tuple):
            raise self.wrong(name, value, "a list")
        expected = inner[:1] * len(value) if inner[1:] == (Ellipsis,) else inner
        if len(value) != len(expected):
            raise self.wrong(name, value, f"a list of {len(expected)}")
        return tuple(
            self.value(one, item, f"{name}[{i}]", field)
            for i, (one, item) in enumerate(zip(expected, value, strict=True))
        )

    def plain(self, annotation: type, value: Any, name: str, field: str) -> Any:
        if annotation in (bool, str):
            if type(value) is not annotation:
                raise self.wrong(name, value, "true or false" if annotation is bool else "a text")
            return value
        whole = annotation is int
        low, high = _RANGES.get(field, _COUNT if whole else _REAL)
        is_number = type(value) is int or (type(value) is float and not whole)
        if not is_number or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise self.wrong(name, value, f"{kind} from {low} to {high}")
        return value

    def wrong(self, name: str, value: Any, expected: str) -> InputError:
        subject = f"{name} is" if name else "it is"
        return InputError(f"{self.where}: {subject} {shown(value)}, expected {expected}")


@cache
def _annotations(kind: type) -> Mapping[str, Any]:
    """The fields of a config that are stored, and their annotations."""
    hints = get_type_hints(kind)
    fields: Any = dataclasses.fields(kind)
    return {one.name: hints[one.name] for one in fields if one.metadata.get("stored", True)}
