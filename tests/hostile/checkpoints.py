"""Work directories that something has happened to, and what a run has to say about each.

The run that they come from: 30 steps with checkpoints at 10, 20 and 30, of which 10 is the best.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LATEST, STEPS, BEST = 30, (10, 20, 30), 10


@dataclass(frozen=True)
class Case:
    name: str
    spoil: Callable[[Path], None]
    refused: tuple[str, ...] = ()  # words of the sentence; empty: the run goes on
    last_whole: int | None = 20  # where resume=last_whole goes on after that; None: nowhere
    resumes: int = LATEST  # where the run goes on if it is not refused
    said: tuple[str, ...] = ()  # words of the note if it is not refused


def _checkpoint(change: Callable[[Path], None], step: int = LATEST) -> Callable[[Path], None]:
    return lambda workdir: change(workdir / "checkpoints" / str(step))


def _file(pattern: str, change: Callable[[Path], None]) -> Callable[[Path], None]:
    """`change` of the largest file of that name in the latest checkpoint."""

    def spoil(checkpoint: Path) -> None:
        change(max(checkpoint.glob(pattern), key=lambda path: path.stat().st_size))

    return _checkpoint(spoil)


def flip(path: Path, at: float = 0.5, mask: int = 0x10) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= mask
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
    else:
        path.write_bytes(b"")


def _replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _edit(key: str, value: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return change


def _write(name: str, content: str | bytes) -> Callable[[Path], None]:
    def spoil(workdir: Path) -> None:
        (workdir / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def _all(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def spoil(workdir: Path) -> None:
        for step in STEPS:
            change(workdir / "checkpoints" / str(step))

    return spoil


def _half_written(workdir: Path) -> None:
    """What a killed process leaves."""
    whole = workdir / "checkpoints" / "30"
    shutil.copytree(whole / "state", workdir / "checkpoints" / "40.orbax-checkpoint-tmp" / "state")


def _from_two(workdir: Path) -> None:
    """Half of one checkpoint, half of another."""
    folder = workdir / "checkpoints"
    shutil.rmtree(folder / "30" / "state")
    shutil.copytree(folder / "20" / "state", folder / "30" / "state")


_DATA = "position/metadata"
_ARRAYS = "state/**/d/*"
_DAMAGED = ("checkpoint 30", "is damaged", "The last whole one is 20", "run.resume=last_whole")


def _damaged(name: str, spoil: Callable[[Path], None], *words: str) -> Case:
    return Case(name, spoil, refused=(*_DAMAGED, *words))


DAMAGED = (
    _damaged(
        "a byte of an array is flipped",
        _file(_ARRAYS, flip),
        "its sha256 is not that of what was written",
    ),
    _damaged("an array is cut short", _file(_ARRAYS, _truncate), "were written"),
    _damaged("an array is empty", _file(_ARRAYS, _empty), "it has 0 bytes"),
    _damaged("an array is missing", _file(_ARRAYS, os.unlink), "is not there"),
    _damaged("an array is a dangling link", _file(_ARRAYS, _replace_by_link), "is not there"),
    _damaged("the arrays' manifest is flipped", _file("state/manifest.ocdbt", flip)),
    _damaged("the tree of names is edited", _file("state/_METADATA", _edit("use_ocdbt", False))),
    _damaged("the state is missing", _checkpoint(lambda c: shutil.rmtree(c / "state")), "state/"),
    _damaged("the state is empty", _checkpoint(lambda c: _empty(c / "state")), "state/"),
    _damaged("the data's position is missing", _file(_DATA, os.unlink), _DATA, "is not there"),
    _damaged("the data's position is edited", _file(_DATA, _edit("next_index", 124)), _DATA),
    _damaged("the data's position is a word", _file(_DATA, _edit("next_index", "x")), _DATA),
    _damaged("the metrics are no JSON", _file("metrics/metrics", _truncate), "metrics/metrics"),
    _damaged("Orbax's description is a list", _file("_CHECK*", lambda p: p.write_text("[]"))),
    _damaged("Orbax's description is binary", _file("_CHECK*", lambda p: p.write_bytes(b"\xff"))),
    _damaged("the digests are missing", _file("digests.json", os.unlink), "digests.json"),
    _damaged(
        "the digests are empty", _file("digests.json", _empty), "digests.json is not valid JSON"
    ),
    _damaged(
        "the digests name nothing", _file("digests.json", lambda p: p.write_text("{}")), "no file"
    ),
    _damaged(
        "the digests hold strings",
        _file("digests.json", lambda p: p.write_text('{"state/_METADATA": "x"}')),
    ),
    _damaged(
        "the digests are nested deep", _file("digests.json", lambda p: p.write_text("[" * 99_999))
    ),
    _damaged("the checkpoint is empty", _checkpoint(_empty), "digests.json is not there"),
    _damaged("the checkpoint is made of two", _from_two, "state/"),
    Case(
        "the latest two are damaged",
        lambda w: [flip(w / f"checkpoints/{n}/{_DATA}") for n in (20, 30)] and None,
        refused=("checkpoint 30", "is damaged", "The last whole one is 10"),
        last_whole=10,
    ),
    Case(
        "every checkpoint is damaged",
        _all(lambda c: flip(c / _DATA)),
        refused=("checkpoint 30", "is damaged", "there is no whole one", "another work directory"),
        last_whole=None,
    ),
)

HARMLESS = (
    Case("nothing has happened", lambda _: None),
    Case(
        "an earlier checkpoint is damaged",
        _checkpoint(lambda c: flip(c / _DATA), 20),
        said=("checkpoint 20 is damaged", "damaged/20"),
    ),
    Case(
        "the metrics of the best are no JSON",
        _checkpoint(lambda c: _empty(c / "metrics" / "metrics"), 10),
        said=("checkpoint 10 is damaged", "damaged/10"),
    ),
    Case("the latest was removed", _checkpoint(shutil.rmtree), resumes=20),
    Case("a save was killed", _half_written),
    Case("Orbax's description is missing", _file("_CHECK*", os.unlink)),
    Case("a file is called like a checkpoint", _write("checkpoints/40", "")),
    Case("notes lie beside the checkpoints", _write("checkpoints/notes.txt", "mine")),
    Case("the log ends in half a line", _write("metrics.jsonl", '{"step": 3')),
    Case("the log is binary", _write("metrics.jsonl", b"\xff\x00[]\n7\n{}\n")),
    Case("the lock says nonsense", _write("run.lock", b"\xff\xfe" * 9)),
)


def _unreadable(name: str, content: str | bytes, *words: str) -> Case:
    refused = ("config.json", *words)
    return Case(name, _write("config.json", content), refused=refused, last_whole=None)


def _replace_by_folder(name: str) -> Callable[[Path], None]:
    def spoil(workdir: Path) -> None:
        (workdir / name).unlink()
        (workdir / name).mkdir()

    return spoil


RUN_FILES = (
    _unreadable("the run's file is empty", "", "cannot be read", "put a copy of it back"),
    _unreadable("the run's file is cut short", '{"run": {"ste', "cannot be read"),
    _unreadable("the run's file is binary", b"\x80\xff{", "cannot be read"),
    _unreadable("the run's file is a list", "[]", "holds no settings"),
    _unreadable("the run's file is nested deep", "[" * 99_999, "cannot be read"),
    Case(
        "the run's file is of another run",
        _write("config.json", '{"seed": 7}'),
        refused=("belongs to another run", "seed is 7 there"),
        last_whole=None,
    ),
    Case(
        "the run's file is a folder",
        _replace_by_folder("config.json"),
        refused=("config.json", "Is a directory"),
        last_whole=None,
    ),
    Case(
        "the run's file is missing",
        lambda workdir: (workdir / "config.json").unlink(),
        refused=("holds no run", "config.json is missing"),
        last_whole=None,
    ),
    Case(
        "the log is a folder",
        _replace_by_folder("metrics.jsonl"),
        refused=("the log in", "cannot be written: Is a directory"),
        last_whole=None,
    ),
)
