"""Weights on disk: trees in Orbax's format, in directories that appear only when they are whole.

Orbax reads them shard by shard, from a local disk or a bucket. A weight that is still to be read
from elsewhere (`Pending`) is read when its turn to be written comes: writing a model takes the
memory of its largest weight.
"""

import asyncio
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Sharding
from orbax.checkpoint import type_handlers

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


def write_directory(
    directory: str | Path,
    card_name: str,
    card: Mapping[str, Any],
    trees: Mapping[str, Mapping[str, Weight]],
) -> None:
    """Writes a directory that holds a card (JSON) and weights, each tree of them by its path."""
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
        write_text(partial / card_name, json.dumps(card, indent=2) + "\n")


def tree_shapes(tree: epath.Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every weight of a tree, without reading them."""
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(_absolute(tree)).item_metadata.tree
    return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in metadata.items()}


def _absolute(path: epath.Path) -> epath.Path:
    """Orbax finds nothing under a relative path; a bucket's is absolute already."""
    return path if "://" in str(path) else path.absolute()


def restore(
    tree: epath.Path,
    names: set[str],
    sharding: Callable[[str], Sharding] | None = None,
    *,
    part: bool = False,
) -> dict[str, Any]:
    """The weights called `names`: all of a tree or, with `part`, some of them."""
    stored = tree_shapes(tree)
    missing, surplus = names - set(stored), set() if part else set(stored) - names
    if missing or surplus:
        raise InputError(
            f"{tree} does not hold the weights that its description names: {len(missing)} are "
            f"missing, {len(surplus)} too many. Convert again."
        )
    how = {
        name: ocp.ArrayRestoreArgs(sharding=sharding(name))
        if sharding
        else ocp.RestoreArgs(restore_type=np.ndarray)
        for name in names
    }
    request = ocp.args.PyTreeRestore(
        item={name: stored[name] for name in names}, restore_args=how, partial_restore=True
    )
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(_absolute(tree), args=request)


def read_description(
    directory: str | Path,
    card_name: str,
    what: str,
    command: str,
    parse: Callable[[dict[str, Any]], Card],
) -> Card:
    """What the card in `directory` says; it should be `what`, which `command` makes."""
    path = epath.Path(directory) / card_name
    if not path.exists():
        raise InputError(
            f"{directory} is not {what}: it has no {card_name}. Make one with `{command}`."
        )
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise InputError(
                f"{path} has format {content['format']}, this version of omgsr-jax reads {FORMAT}. "
                "Convert again, or install a version that fits."
            )
        return parse(content)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error!r}. Convert again.") from error


def to_json(config: Any) -> dict[str, Any]:
    """A config's fields, but for those that say how it is computed with (`stored` is False)."""
    left_out = {
        item.name for item in dataclasses.fields(config) if not item.metadata.get("stored", True)
    }
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in left_out}


def from_json(kind: type, content: Mapping[str, Any] | None) -> Any:
    """The config of class `kind` that was written as `content`."""
    if content is None:
        return None
    return kind(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content.items()
            if name != "kind"
        }
    )
