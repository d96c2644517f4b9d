"""Reading and writing safetensors files, one tensor at a time.

A file is the length of its header (8 bytes), the header (JSON: name -> dtype, shape, byte range)
and the bytes. Reading a tensor touches only its own bytes: a conversion never holds a whole file.
Pickled checkpoints can run any code when opened; they are refused unless the user allows
`torch.load(weights_only=True)`.
"""

import json
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from omgsr_jax import files
from omgsr_jax.descriptions import (
    build,
    checked,
    file_size,
    first_line,
    parse_json,
    read_json,
    several,
    shown,
)
from omgsr_jax.errors import InputError

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("int64"),
    "I32": np.dtype("int32"),
    "U8": np.dtype("uint8"),
    "BOOL": np.dtype("bool"),
}
_FLOATING = ("F64", "F32", "F16", "BF16")
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000
PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # zip, pickle


def is_floating(dtype: np.dtype) -> bool:
    """NumPy takes bf16 for none of its own kinds."""
    return dtype in [DTYPES[name] for name in _FLOATING]


@dataclass(frozen=True)
class _Entry:
    """A tensor in a header; its bytes are counted from the header's end."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(
                f"it is stored as {shown(self.dtype)}, which is not supported; expected one of "
                f"{', '.join(DTYPES)}"
            )
        begin, end = self.data_offsets
        if end - begin != self.size:
            raise ValueError(
                f"its shape {shown(self.shape)} needs {self.size} bytes, its header gives it "
                f"{end - begin}. The file is damaged; fetch it again."
            )


class SafetensorsFile(Mapping[str, np.ndarray]):
    """The tensors of one file by name, read when asked for."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._entries, self._start = _read_header(self.path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def dtype(self, name: str) -> np.dtype:
        return DTYPES[self._entries[name].dtype]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def __getitem__(self, name: str) -> np.ndarray:
        begin, end = self._entries[name].data_offsets
        with self.path.open("rb") as file:
            file.seek(self._start + begin)
            data = np.fromfile(file, np.uint8, end - begin)
        return data.view(self.dtype(name)).reshape(self.shape(name))


def _read_header(path: Path) -> tuple[dict[str, _Entry], int]:
    """The file's header, checked against its size, and where the tensors' bytes begin."""
    size = file_size(path)
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MAX_HEADER_BYTES + 1
        if length > _MAX_HEADER_BYTES and start.startswith(_PICKLE_STARTS):
            raise InputError(f"{path} is a pickle under a safetensors name; {_PICKLE_ADVICE}")
        if length > _MAX_HEADER_BYTES or 8 + length > size:
            raise InputError(
                f"{path} is not a whole safetensors file: it has {size} bytes, and its header "
                "alone would need more. Fetch it again."
            )
        where = f"{path} has a damaged safetensors header"
        header = parse_json(file.read(length), f"{where}: it")
    header.pop("__metadata__", None)
    entries = {
        name: build(_Entry, entry, f"{path}: tensor {several([name])}")
        for name, entry in header.items()
    }
    end = max((entry.data_offsets[1] for entry in entries.values()), default=0)
    if size != 8 + length + end:
        raise InputError(
            f"{path} is truncated or damaged: its header announces {8 + length + end} bytes, the "
            f"file has {size}. Fetch it again."
        )
    _require_no_overlap(path, entries)
    return entries, 8 + length


def _require_no_overlap(path: Path, entries: Mapping[str, _Entry]) -> None:
    """The tensors lie one behind the other, without gaps, as the format asks for."""
    last, position = "the header", 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        if begin != position:
            raise InputError(
                f"{path} has a damaged safetensors header: tensor {several([name])} begins at byte "
                f"{begin}, expected {position}, where {several([last])} ends. Fetch it again."
            )
        last, position = f"tensor {name}", end


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of several files as one."""

    def __init__(self, files: "Sequence[SafetensorsFile | LoadedTensors]"):
        self.files = files
        self._where: dict[str, SafetensorsFile | LoadedTensors] = {}
        for file in files:
            for name in file:
                if name in self._where:
                    raise InputError(f"{name} is in {self._where[name].path} and in {file.path}")
                self._where[name] = file

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._where[name][name]

    def weight(self, name: str) -> np.ndarray:
        """A tensor that a network can compute with: all of its numbers are finite."""
        tensor = self[name]
        if not is_floating(tensor.dtype):
            raise InputError(
                f"{self._where[name].path}: tensor {name} is of {tensor.dtype}, expected "
                "floating-point numbers"
            )
        if not np.isfinite(tensor).all():
            raise InputError(
                f"{self._where[name].path}: tensor {name} has values that are not finite (NaN or "
                "infinity). The weights are damaged, or their training diverged."
            )
        return tensor

    def dtype(self, name: str) -> np.dtype:
        return self._where[name].dtype(name)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._where[name].shape(name)


_PICKLE_ADVICE = (
    "pickles can run any code when they are opened. Use a safetensors version of these weights, "
    "or, if you trust their author, allow torch.load(weights_only=True) with --allow-pickle."
)


def main_file(names: Iterable[str], stem: str) -> str | None:
    """Which of the files in a folder holds the weights, or is the index of their shards.

    The full-precision one is taken where several are at hand. `stem` is the file's name without its
    ending, such as "diffusion_pytorch_model".
    """
    for pattern in (
        rf"{stem}\.safetensors",
        rf"{stem}\.safetensors\.index\.json",
        rf"{stem}\.\w+\.safetensors",
        rf"{stem}\.safetensors\.index\.\w+\.json",
        rf"{stem}\.\w+\.safetensors\.index\.json",
    ):
        for name in sorted(names):
            if re.fullmatch(pattern, name):
                return name
    return None


def pickles(names: Iterable[str], stem: str, *, allow_pickle: bool, where: Path | str) -> list[str]:
    """The pickled weights of that stem, if they may be opened."""
    found = [n for n in sorted(names) if stem in n and Path(n).suffix in PICKLE_ENDINGS]
    if found and not allow_pickle:
        raise InputError(f"{where}/{found[0]} is a pickle, and {_PICKLE_ADVICE}")
    full = [n for n in found if re.fullmatch(rf"(pytorch_)?{stem}(-\d+-of-\d+)?\.\w+", n)]
    return full or found


def open_tensors(folder: Path, stem: str, *, allow_pickle: bool = False) -> Tensors:
    """The weights in `folder`: a single file, shards with an index, or a variant such as fp16."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    main = main_file(names, stem)
    if main:
        return _open_shards(folder / main) if is_index(main) else _open_single(folder / main)
    found = pickles(names, stem, allow_pickle=allow_pickle, where=folder)
    if not found:
        raise InputError(f"no weights in {folder}: expected {stem}.safetensors or its shards")
    return _load_pickles([folder / name for name in found])


def is_index(name: str) -> bool:
    return name.endswith(".json")


def open_file(path: Path, *, allow_pickle: bool = False) -> Tensors:
    """The weights in one file, safetensors or (where allowed) a pickle."""
    if path.suffix not in PICKLE_ENDINGS:
        return _open_single(path)
    require_pickles_allowed(path, allow_pickle)
    return _load_pickles([path])


def require_pickles_allowed(path: Path, allow_pickle: bool) -> None:
    if not allow_pickle:
        raise InputError(f"{path} is a pickle, and {_PICKLE_ADVICE}")


def _open_single(path: Path) -> Tensors:
    return Tensors([SafetensorsFile(path)])


def shards(index: Path) -> Mapping[str, str]:
    """The shard of each tensor, by an index; all lie beside it."""
    content = read_json(index)
    if "weight_map" not in content:
        raise InputError(f"{index} is not an index of shards: it has no weight_map")
    found: Mapping[str, str] = checked(
        Mapping[str, str], content["weight_map"], str(index), "weight_map"
    )
    outside = sorted({name for name in found.values() if not name or Path(name).name != name})
    if outside:
        raise InputError(f"{index} lists shards that are not beside it: {several(outside)}")
    return found


def _open_shards(index: Path) -> Tensors:
    weight_map = shards(index)
    names = sorted(set(weight_map.values()))
    # Path.is_file raises where a name is none that a file could have.
    absent = [name for name in names if not os.path.isfile(index.parent / name)]
    if absent:
        raise InputError(f"{index} lists shards that are not there: {several(absent)}")
    tensors = Tensors([SafetensorsFile(index.parent / name) for name in names])
    lost = sorted(set(weight_map) - set(tensors))
    if lost:
        raise InputError(f"{index} lists tensors that no shard has: {several(lost)}")
    return tensors


def _load_pickles(paths: list[Path]) -> Tensors:
    return Tensors([LoadedTensors(path, read_pickle(path)) for path in paths])


def read_pickle(path: Path) -> dict[str, Any]:
    """The dict in a pickled file, of which PyTorch allows tensors, numbers, texts and lists."""
    try:
        import torch
    except ImportError:
        raise InputError(f"reading {path} needs PyTorch: `pip install torch`") from None
    file_size(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return {str(name): value for name, value in found.items()}
    except Exception as error:  # what torch finds wrong has nearly every type there is
        raise _not_tensors(path, error) from error


class LoadedTensors(dict[str, np.ndarray]):
    """The tensors of a pickled file by name."""

    def __init__(self, path: Path, tensors: Mapping[str, Any]):
        self.path = path
        try:
            super().__init__((name, _as_array(tensor)) for name, tensor in tensors.items())
        except Exception as error:  # what is no tensor lacks some attribute or another
            raise _not_tensors(path, error) from error

    def dtype(self, name: str) -> np.dtype:
        return self[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        return self[name].shape


def _not_tensors(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is not a dict of tensors that torch.load(weights_only=True) can read: "
        f"{first_line(error)}"
    )


def _as_array(tensor: Any) -> np.ndarray:
    import torch

    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes `tensors` to `path`; a file appears there only when it is whole."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with files.atomic(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor).view(np.uint8).reshape(-1).data)
