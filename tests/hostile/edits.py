"""Ways to damage a copy of a folder, for the cases of models.py and adapters.py.

A case is a name, an edit of the copy, and the words that are due in the sentence about it; a case
without words is answered by the right result.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

Edit = Callable[[Path], Any]


@dataclass(frozen=True)
class Case:
    name: str
    edit: Edit
    words: tuple[str, ...] = ()


def then(first: Edit, edit: Edit, name: str) -> Edit:
    """One edit of a folder, and another of the file `name` that it has written."""

    def both(root: Path) -> None:
        first(root)
        edit(root / name)

    return both


# Of any file.


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    """The file behind a link, as the hub's cache has it: nothing is wrong with that."""
    moved = path.with_name(f"{path.name}.moved")
    path.rename(moved)
    path.symlink_to(moved.name)


def flipped(path: Path) -> None:
    """200 bytes, spread over the file, become others."""
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    data[np.linspace(0, len(data) - 1, min(200, len(data))).astype(int)] ^= 0x55
    path.write_bytes(data.tobytes())


def file_for_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("a file")


def of(name: str, edit: Edit) -> Edit:
    """The edit of one file of a folder."""
    return lambda root: edit(root / name)


GONE = {
    "missing": missing,
    "folder": folder,
    "loop": loop,
    "dangling": dangling,
}


# Of JSON.


def text(data: bytes) -> Edit:
    return lambda path: path.write_bytes(data)


def _recoded(encoding: str) -> Edit:
    return lambda path: path.write_bytes(path.read_text().encode(encoding))


def _twice(path: Path) -> None:
    content = path.read_text().strip()
    first = content[1 : content.index(",")]
    path.write_text(f"{{{first},{content[1:]}")


# What holds no object, whatever was asked for: an edit, and what is said.
NOT_JSON: dict[str, tuple[Edit, str]] = {
    "empty": (empty, "not valid JSON"),
    "half": (half, "not valid JSON"),
    "words": (text(b"not json"), "not valid JSON"),
    "list": (text(b"[1, 2]"), "holds a list, expected a JSON object"),
    "null": (text(b"null"), "expected a JSON object"),
    "number": (text(b"3"), "expected a JSON object"),
    "zeros": (text(bytes(64)), "not valid JSON"),
    "utf-16": (_recoded("utf-16"), "not text in UTF-8"),
    "latin-1": (text(b'{"a": "\xe9"}'), "not text in UTF-8"),
    "deep": (text(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "nested too deeply"),
    "deep lists": (text(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested too deeply"),
    "twice": (_twice, "is there twice"),
    "nan": (text(b'{"a": NaN}'), "NaN is no number"),
    "infinity": (text(b'{"a": -Infinity}'), "-Infinity is no number"),
    "1e400": (text(b'{"a": 1e400}'), "too large a number"),
    "5000 digits": (text(b'{"a": 1' + b"0" * 5000 + b"}"), "not valid JSON"),
}
# What is the same object in other bytes.
SAME_JSON: dict[str, Edit] = {
    "bom": _recoded("utf-8-sig"),
    "crlf": lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")),
    "one line": lambda path: path.write_text(json.dumps(json.loads(path.read_text()))),
}


def put(dotted: str, value: Any) -> Edit:
    """A JSON file with another value in one place; `...` takes it out."""

    def edit(path: Path) -> None:
        content = json.loads(path.read_text())
        *above, last = dotted.split(".")
        at = content
        for name in above:
            at = at[name]
        if value is ...:
            del at[last]
        else:
            at[last] = value
        path.write_text(json.dumps(content))

    return edit


# Of safetensors.


def tensors(change: Callable[[dict[str, np.ndarray]], Any]) -> Edit:
    """The tensors changed, and written in order."""

    def edit(path: Path) -> None:
        found = load_file(path)
        change(found)
        save_file(found, path)

    return edit


def header(change: Callable[[dict[str, Any]], Any]) -> Edit:
    """The header changed in place or replaced by what is returned, the bytes behind it not."""

    def edit(path: Path) -> None:
        content, data = _apart(path)
        changed = change(content)
        _together(path, json.dumps(content if changed is None else changed).encode(), data)

    return edit


def raw_header(data: bytes) -> Edit:
    return lambda path: _together(path, data, _apart(path)[1])


def entry(**fields: Any) -> Edit:
    """The first tensor's entry with other fields."""
    return header(lambda content: _first(content).update(fields))


def _first(content: dict[str, Any]) -> dict[str, Any]:
    return next(value for name, value in content.items() if name != "__metadata__")


def _apart(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _together(path: Path, head: bytes, data: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


def _overlapping(content: dict[str, Any]) -> None:
    """Two tensors of one size on the same bytes; the last one's stay, so that the sum is right."""
    names = [name for name in content if name != "__metadata__"]
    by_size: dict[int, str] = {}
    for name in names:
        begin, end = content[name]["data_offsets"]
        if end - begin in by_size:
            content[by_size[end - begin]]["data_offsets"] = [begin, end]
            return
        by_size[end - begin] = name


def _with_length(length: int) -> Edit:
    return lambda path: path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])


def _set_first(tensors_: dict[str, np.ndarray], value: float) -> None:
    name = min(tensors_)
    tensors_[name] = np.full_like(tensors_[name], value)


# What is wrong with a file of weights: an edit, and what is said.
NOT_TENSORS: dict[str, tuple[Edit, str]] = {
    "empty": (empty, "not a whole safetensors file"),
    "half": (half, "is truncated or damaged"),
    "four bytes": (text(b"1234"), "not a whole safetensors file"),
    "longer": (longer, "is truncated or damaged"),
    "a header of 2^63": (_with_length(2**63), "not a whole safetensors file"),
    "a header longer than the file": (_with_length(2**26), "not a whole safetensors file"),
    "a header too short": (_with_length(20), "damaged safetensors header"),
    "header: words": (raw_header(b"@@@@"), "damaged safetensors header"),
    "header: list": (raw_header(b"[]"), "expected a JSON object"),
    "header: utf-16": (raw_header('{"a": 1}'.encode("utf-16")), "not text in UTF-8"),
    "header: deep": (raw_header(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "nested too deeply"),
    "header: twice": (
        raw_header(b'{"a": {}, "a": {}}'),
        "is there twice",
    ),
    "an entry of null": (header(lambda c: c.update({max(c): None})), "expected an object"),
    "an entry without a shape": (
        header(lambda c: _first(c).pop("shape").clear()),
        "is missing",
    ),
    "an entry with more": (entry(more=1), "more is not known here"),
    "dtype: unknown": (entry(dtype="F4"), "'F4', which is not supported"),
    "dtype: number": (entry(dtype=32), "dtype is 32, expected a text"),
    "dtype: wider": (entry(dtype="F64"), "its header gives it"),
    "shape: negative": (entry(shape=[-1, -8]), "shape[0] is -1"),
    "shape: text": (entry(shape="8"), "shape is '8', expected a list"),
    "shape: 2^70": (entry(shape=[2**70]), "expected a whole number"),
    "shape: product of 2^90": (entry(shape=[2**30, 2**30, 2**30]), "its header gives it"),
    "shape: true": (entry(shape=[True, 8]), "shape[0] is True"),
    "shape: 8.0": (entry(shape=[8.0]), "shape[0] is 8.0"),
    "offsets: negative": (entry(data_offsets=[-8, 8]), "data_offsets[0] is -8"),
    "offsets: backwards": (entry(data_offsets=[64, 0]), "its header gives it"),
    "offsets: one": (entry(data_offsets=[0]), "expected a list of 2"),
    "offsets: beyond": (entry(data_offsets=[0, 2**40]), "its header gives it"),
    "offsets: text": (entry(data_offsets=["0", "8"]), "data_offsets[0] is '0'"),
    "overlapping": (header(_overlapping), "expected"),
    "no tensors": (header(lambda c: {}), "is truncated or damaged"),
    "nan": (tensors(lambda t: _set_first(t, np.nan)), "not finite"),
    "infinity": (tensors(lambda t: _set_first(t, -np.inf)), "not finite"),
}
# What is whole and does not fit the config beside it.
MISFITS: dict[str, tuple[Edit, str]] = {
    "integers": (
        tensors(lambda t: t.update({min(t): t[min(t)].astype(np.int32)})),
        "not of floating-point numbers",
    ),
    "one is missing": (tensors(lambda t: t.pop(min(t)) is None), "1 key missing"),
    "one more": (tensors(lambda t: t.update(more=np.ones(3, np.float32))), "not known here"),
    "another shape": (
        tensors(lambda t: t.update({min(t): np.ones((2, 2), np.float32)})),
        "of the wrong shape",
    ),
}


def cases(prefix: str, table: dict[str, tuple[Edit, str]], name: str) -> Iterator[Case]:
    """The cases of a table, done to the file `name`, which the sentence has to name."""
    for what, (edit, words) in table.items():
        yield Case(f"{prefix}: {what}", of(name, edit), (words, name))
