"""The papers' test sets, in the layouts in which they are shared.

StableSR's authors share all three, and everybody since has taken theirs: 128-px inputs and 512-px
references of the same names in two folders.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .papers import IMAGES

# What the folder of a set is called there.
FOLDERS = {
    "RealSR": "RealSRVal_crop128",
    "DRealSR": "DrealSRVal_crop128",
    "DIV2K-Val": "DIV2K_V2_val",
}
# Inputs and references inside it; the last is what `omgsr degrade` writes.
SIDES = (("test_LR", "test_HR"), ("lq", "gt"), ("lr", "hr"))
SOURCE = "StableSR_testsets.zip of huggingface.co/datasets/Iceclear/StableSR-TestSets"


@dataclass(frozen=True)
class SharedSet:
    lr: Path
    hr: Path


def pairs_in(folder: str | Path) -> SharedSet:
    """The two sides of a set."""
    for low, high in SIDES:
        found = SharedSet(Path(folder) / low, Path(folder) / high)
        if found.lr.is_dir() and found.hr.is_dir():
            return found
    expected = ", ".join(f"{low} and {high}" for low, high in SIDES)
    raise InputError(f"{folder} is no set of pairs: expected folders in it called {expected}")


def find_sets(data: Sequence[str]) -> tuple[dict[str, SharedSet], dict[str, str]]:
    """The papers' sets that are there, and for each of the others where it is to be had.

    Args:
        data: NAME=FOLDER for one set, or a folder that holds the sets under their shared names.
    """
    folders: dict[str, Path] = {}
    for given in data:
        name, equals, path = given.partition("=")
        if equals and name in IMAGES:
            folders[name] = Path(path)
        else:
            folders |= _shared_below(Path(given))
    found = {name: pairs_in(folders[name]) for name in IMAGES if name in folders}
    missing = {
        name: f"no folder {FOLDERS[name]} in {', '.join(data)}: it is in {SOURCE}; or name the "
        f"folder that holds it, {name}=FOLDER"
        for name in IMAGES
        if name not in found
    }
    return found, missing


def _shared_below(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise InputError(
            f"{root} is not a folder: expected one that holds the test sets, or NAME=FOLDER with "
            f"one of {', '.join(IMAGES)}"
        )
    names = {folder.lower(): name for name, folder in FOLDERS.items()}
    return {
        names[folder.name.lower()]: folder
        for folder in _two_floors(root)
        if folder.name.lower() in names
    }


def _two_floors(root: Path) -> Iterator[Path]:
    """The archive has a folder around the sets."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        yield folder
        yield from sorted(path for path in folder.iterdir() if path.is_dir())
