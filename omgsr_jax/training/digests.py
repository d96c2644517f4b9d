"""Digests of a checkpoint's files: written before the checkpoint gets its name, compared later.

    checkpoints/STEP/digests.json      the size and the sha256 of every file of every item

Compression hides most damage, and Orbax reads what is left of it without a word.
"""

import json

from etils import epath

from .. import digests, files
from ..descriptions import read_json
from ..errors import InputError

DIGESTS = "digests.json"
_ORBAX = "_CHECKPOINT_METADATA"  # changed last of all, with the time of the commit


def write(checkpoint: epath.Path) -> None:
    """For a checkpoint whose files are all written. What lies beside its items is Orbax's own."""
    found = {
        f"{item.name}/{name}": one
        for item in sorted(checkpoint.iterdir())
        if item.is_dir()
        for name, one in digests.of_files(item).items()
    }
    files.write_text(checkpoint / DIGESTS, json.dumps(found, indent=1) + "\n")


def damage(checkpoint: epath.Path) -> str | None:
    """What is wrong with a checkpoint, or None if it is as it was written."""
    try:
        listed = digests.listed(read_json(checkpoint / DIGESTS), str(checkpoint / DIGESTS))
        if (checkpoint / _ORBAX).exists():
            read_json(checkpoint / _ORBAX)
        for name, one in listed.items():
            if found := digests.difference(checkpoint / name, one):
                return f"{name}: {found}"
    except (InputError, OSError) as error:
        return str(error)
    return None if listed else f"{DIGESTS} names no file"
