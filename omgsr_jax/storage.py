"""Weights on disk: trees in Orbax's format, in directories that appear only when they are whole.

Orbax reads them shard by shard, from a local disk or a bucket. A weight that is still to be read
from elsewhere (`Pending`) is read when its turn to be written comes: writing a model takes the
memory of its largest weight.
"""

import asyncio
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Sharding
from orbax.checkpoint import type_handlers

from . import buckets, digests
from .descriptions import Json, first_line, read_json, shown
from .digests import FILES, Notify, Written
from .errors import InputError
from .files import new_directory, write_text

FORMAT = 1  # of the descriptions beside the weights
PARAMS = "params"

Card = TypeVar("Card")

# A device that reads its part of a sharded weight reads these whole.
_CHUNK_BYTES = 2**25
# A data file is held in memory until it is full; the default of 2 GB doubles what writing needs.
_DATA_FILE_BYTES = 1 << 27
# How much may be read before it is written.
_BATCH_BYTES = 2**28


@dataclass(frozen=True)
class Pending:
    """A weight that is read when it is needed."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


Weight: TypeAlias = np.ndarray | Pending


class _PendingHandler(type_handlers.NumpyHandler):
    """Writes weights a few at a time, each read when those before it are on disk."""

    async def serialize(
        self, values: Sequence[Any], infos: Sequence[Any], args: Sequence[Any] | None = None
    ) -> list[Any]:
        for chosen in _batches([value.nbytes for value in values]):
            given = [args[i] for i in chosen] if args else None
            read, where = [values[i].read() for i in chosen], [infos[i] for i in chosen]
            for writing in await super().serialize(read, where, given):
                await asyncio.to_thread(writing.result)
        return []


def _batches(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Indices of neighbours that are within the limit together, or alone beyond it."""
    batch: list[int] = []
    for i, size in enumerate(sizes):
        if batch and sum(sizes[j] for j in batch) + size > _BATCH_BYTES:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _handler() -> ocp.PyTreeCheckpointHandler:
    registry = type_handlers.create_type_handler_registry(
        (Pending, _PendingHandler()),
        (np.ndarray, type_handlers.NumpyHandler()),
        (jax.Array, type_handlers.ArrayHandler()),
    )
    return ocp.PyTreeCheckpointHandler(save_concurrent_gb=1, type_handler_registry=registry)


@dataclass(frozen=True)
class Kind:
    """A kind of directory that holds a card (JSON) and weights."""

    what: str
    card: str  # the name of its file
    command: str  # what makes such a directory


def write_directory(
    directory: str | Path,
    kind: Kind,
    card: Mapping[str, Any],
    trees: Mapping[str, Mapping[str, Weight]],
    *,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Writes a directory that holds a card and weights, each tree of them by its path.

    The card also lists the files of the weights, and their digests. `texts` are files for people,
    which may be edited.
    """
    size = sum(array.nbytes for tree in trees.values() for array in tree.values())
    with new_directory(directory, bytes_needed=size) as partial:
        with ocp.Checkpointer(_handler()) as checkpointer:
            for path, tree in trees.items():
                chunks = {name: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES) for name in tree}
                request = ocp.args.PyTreeSave(
                    dict(tree), chunks, ocdbt_target_data_file_size=_DATA_FILE_BYTES
                )
                checkpointer.save(partial / path, args=request)
                # Orbax notes the path on the machine that wrote it, which is nobody's business.
                for marker in (partial / path).glob("commit_success.txt"):
                    marker.write_text("Checkpoint commit was successful\n")
        listed = digests.of_files(partial)
        for name, text in (texts or {}).items():
            write_text(partial / name, text)
        # Last: in a bucket it makes a whole directory of what lies there.
        _write_card(partial / kind.card, {**card, FILES: listed})


def rewrite_card(directory: str | Path, kind: Kind, card: Mapping[str, Any]) -> None:
    """Another card for the weights that are there: their files and digests stay listed."""
    before = read_content(directory, kind)
    files = {FILES: before[FILES]} if FILES in before else {}
    for left in epath.Path(directory).glob(".*.partial"):  # of an edit that was killed
        left.unlink(missing_ok=True)
    _write_card(epath.Path(directory) / kind.card, {**card, **files})


def _write_card(path: epath.Path | Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def tree_shapes(
    directory: str | Path, kind: Kind, tree: str = PARAMS
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every weight of a tree, without reading them."""
    digests.require_sizes(epath.Path(directory), _written(directory, kind, tree))
    return _shapes(directory, tree)


def _shapes(directory: str | Path, tree: str) -> dict[str, jax.ShapeDtypeStruct]:
    with _reading(directory, tree), ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(_absolute(directory, tree)).item_metadata
        if metadata is None:
            raise ValueError("it has no whole description of its arrays")
        return {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, leaf in metadata.tree.items()
        }


def restore(
    directory: str | Path,
    kind: Kind,
    wanted: Mapping[str, Any],
    *,
    tree: str = PARAMS,
    sharding: Callable[[str], Sharding] | None = None,
    part: bool = False,
    notify: Notify | None = None,
) -> dict[str, Any]:
    """Weights by name, from files that are as they were written.

    Args:
        directory: what `write_directory` wrote, local or in a bucket.
        kind: of the directory.
        wanted: what has a shape, by name: all weights of the tree or, with `part`, some of them.
        tree: which of the directory's trees.
        sharding: where each weight goes; by default they are NumPy arrays on the host.
        part: there may be more weights than those.
        notify: told how long comparing large files with their digests takes.
    """
    written = _written(directory, kind, tree)
    with digests.verified(epath.Path(directory), written, notify):
        stored = _shapes(directory, tree)
        _require_fit(f"{directory}/{tree}", stored, wanted, part=part)
        how = {
            name: ocp.ArrayRestoreArgs(sharding=sharding(name))
            if sharding
            else ocp.RestoreArgs(restore_type=np.ndarray)
            for name in wanted
        }
        request = ocp.args.PyTreeRestore(
            item={name: stored[name] for name in wanted}, restore_args=how, partial_restore=True
        )
        with _reading(directory, tree), ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.restore(_absolute(directory, tree), args=request)


def _require_fit(
    where: str,
    stored: Mapping[str, jax.ShapeDtypeStruct],
    wanted: Mapping[str, Any],
    *,
    part: bool,
) -> None:
    missing, surplus = wanted.keys() - stored.keys(), set()
    if not part:
        surplus = stored.keys() - wanted.keys()
    if missing or surplus:
        raise InputError(
            f"{where} does not hold the weights that its description names: {len(missing)} are "
            f"missing, {len(surplus)} too many. Convert again."
        )
    for name, leaf in wanted.items():
        found = stored[name]
        if found.shape != tuple(leaf.shape) or not jnp.issubdtype(found.dtype, jnp.floating):
            raise InputError(
                f"{where} does not hold the weights that its description names: {name} has the "
                f"shape {found.shape} of {found.dtype}, expected {tuple(leaf.shape)} of "
                "floating-point numbers. Convert again."
            )


@contextmanager
def _reading(directory: str | Path, tree: str) -> Iterator[None]:
    """Whatever Orbax finds wrong with what is on disk is one sentence."""
    try:
        yield
    except (InputError, MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:  # it reports damage by nearly every type there is
        raise InputError(
            f"{directory}/{tree} cannot be read as weights in Orbax's format "
            f"({first_line(error)}). Convert the model again, or copy it again."
        ) from error


def _absolute(directory: str | Path, tree: str) -> epath.Path:
    """Orbax finds nothing under a relative path; a bucket's is absolute already."""
    path = epath.Path(directory) / tree
    return path if buckets.is_remote(path) else path.absolute()


def _written(directory: str | Path, kind: Kind, tree: str) -> dict[str, Written]:
    """The files of a tree with their digests; none where the card has none."""
    content, where = read_content(directory, kind), _where(directory, kind)
    if FILES not in content:
        return {}
    found = digests.listed(content[FILES], where, f"{tree}/")
    if not found:
        raise InputError(f"{where}: {FILES} lists nothing below {tree}/. Convert again.")
    return found


def digest(directory: str | Path, kind: Kind) -> str | None:
    """One for all: of the card, which lists those of the files. None where it does not."""
    content = read_content(directory, kind)
    if FILES not in content:
        return None
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_content(directory: str | Path, kind: Kind) -> Json:
    """What the card in `directory` says, as it stands there."""
    buckets.require(directory)
    path = epath.Path(directory) / kind.card
    if not path.exists():
        raise InputError(
            f"{directory} is not {kind.what}: it has no {kind.card}. Make one with "
            f"`{kind.command}`."
        )
    content = read_json(path)
    if (found := content.get("format")) != FORMAT:
        raise InputError(
            f"{path} has format {shown(found)}, this version of omgsr-jax reads {FORMAT}. Convert "
            "again, or install a version that fits."
        )
    return content


def read_description(directory: str | Path, kind: Kind, parse: Callable[[Json, str], Card]) -> Card:
    """What the card in `directory` describes; `parse` is also told where that stands."""
    content = read_content(directory, kind)
    rest = {name: value for name, value in content.items() if name not in ("format", FILES)}
    return parse(rest, _where(directory, kind))


def _where(directory: str | Path, kind: Kind) -> str:
    return f"{epath.Path(directory) / kind.card} is damaged"


def to_json(config: Any) -> dict[str, Any]:
    """A config's fields, but for those that say how it is computed with (`stored` is False)."""
    left_out = {
        item.name for item in dataclasses.fields(config) if not item.metadata.get("stored", True)
    }
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in left_out}
