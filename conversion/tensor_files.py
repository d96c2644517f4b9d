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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from omgsr_jax import files
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
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000
_PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt")
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # zip, pickle


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
        return DTYPES[self._entries[name]["dtype"]]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._entries[name]["shape"])

    def __getitem__(self, name: str) -> np.ndarray:
        begin, end = self._entries[name]["data_offsets"]
        with self.path.open("rb") as file:
            file.seek(self._start + begin)
            data = np.fromfile(file, np.uint8, end - begin)
        return data.view(self.dtype(name)).reshape(self.shape(name))


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The file's header, checked against its size, and where the tensors' bytes begin."""
    size = path.stat().st_size
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
        try:
            entries = json.loads(file.read(length))
            entries.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{path} has a damaged safetensors header: {error}") from error
    if size != 8 + length + end:
        raise InputError(
            f"{path} is truncated or damaged: its header announces {8 + length + end} bytes, the "
            f"file has {size}. Fetch it again."
        )
    for name, entry in entries.items():
        _check_entry(path, name, entry)
    return entries, 8 + length


def _check_entry(path: Path, name: str, entry: dict[str, Any]) -> None:
    if entry["dtype"] not in DTYPES:
        raise InputError(
            f"{path}: tensor {name} is stored as {entry['dtype']}, which is not supported; "
            f"expected one of {', '.join(DTYPES)}"
        )
    begin, end = entry["data_offsets"]
    expected = math.prod(entry["shape"]) * DTYPES[entry["dtype"]].itemsize
    if begin < 0 or end - begin != expected:
        raise InputError(
            f"{path}: tensor {name} of shape {entry['shape']} needs {expected} bytes, its header "
            f"gives it {end - begin}. The file is damaged; fetch it again."
        )


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of several files as one."""

    def __init__(self, files: list[SafetensorsFile]):
        self.files = files
        self._where: dict[str, SafetensorsFile] = {}
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

    def dtype(self, name: str) -> np.dtype:
        return self._where[name].dtype(name)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._where[name].shape(name)


_PICKLE_ADVICE = (
    "pickles can run any code when they are opened. Use a safetensors version of these weights, "
    "or, if you trust their author, allow torch.load(weights_only=True) with --allow-pickle."
)


def open_tensors(
    folder: Path, stem: str, *, allow_pickle: bool = False
) -> Mapping[str, np.ndarray]:
    """The weights in `folder`: a single file, shards with an index, or a variant such as fp16.

    The full-precision file is taken where several are at hand. `stem` is the file's name without
    its ending, such as "diffusion_pytorch_model".
    """
    for pattern, reader in (
        (rf"{stem}\.safetensors", _open_single),
        (rf"{stem}\.safetensors\.index\.json", _open_shards),
        (rf"{stem}\.\w+\.safetensors", _open_single),
        (rf"{stem}\.safetensors\.index\.\w+\.json", _open_shards),
        (rf"{stem}\.\w+\.safetensors\.index\.json", _open_shards),
    ):
        for path in sorted(folder.glob(f"{stem}*")):
            if re.fullmatch(pattern, path.name):
                return reader(path)
    pickles = [path for path in sorted(folder.glob(f"*{stem}*")) if path.suffix in _PICKLE_ENDINGS]
    if pickles and allow_pickle:
        return _load_pickles(pickles)
    if pickles:
        raise InputError(f"{pickles[0]} is a pickle, and {_PICKLE_ADVICE}")
    raise InputError(f"no weights in {folder}: expected {stem}.safetensors or its shards")


def open_file(path: Path, *, allow_pickle: bool = False) -> Mapping[str, np.ndarray]:
    """The weights in one file, safetensors or (where allowed) a pickle."""
    if path.suffix not in _PICKLE_ENDINGS:
        return _open_single(path)
    if not allow_pickle:
        raise InputError(f"{path} is a pickle, and {_PICKLE_ADVICE}")
    return _load_pickles([path])


def _open_single(path: Path) -> Tensors:
    return Tensors([SafetensorsFile(path)])


def _open_shards(index: Path) -> Tensors:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index} is not an index of shards: {error!r}") from error
    names = sorted(set(weight_map.values()))
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise InputError(f"{index} lists shards that are not there: {', '.join(absent)}")
    tensors = Tensors([SafetensorsFile(index.parent / name) for name in names])
    lost = sorted(set(weight_map) - set(tensors))
    if lost:
        raise InputError(f"{index} lists tensors that no shard has: {', '.join(lost[:10])}")
    return tensors


def _load_pickles(paths: list[Path]) -> dict[str, np.ndarray]:
    import torch

    tensors: dict[str, np.ndarray] = {}
    for path in paths:
        for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items():
            if tensor.dtype == torch.bfloat16:
                tensors[name] = tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
            else:
                tensors[name] = tensor.detach().numpy()
    return tensors


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
