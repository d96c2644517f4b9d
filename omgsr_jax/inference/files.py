"""Which files to upscale, and where each result goes."""

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from . import formats


@dataclass(frozen=True)
class Job:
    source: Path
    goal: Path


def plan(
    inputs: Sequence[str],
    out: str | os.PathLike[str],
    *,
    recursive: bool = False,
    suffix: str | None = None,
    overwrite_input: bool = False,
) -> list[Job]:
    """Files, folders and globs to pairs of input and output.

    One file goes to `out` itself if that has an image's suffix, else into the folder `out`. A
    folder's tree is mirrored in `out`. Names are kept, and made different where two would meet.
    """
    out = Path(out)
    found = _find(inputs, recursive=recursive, out=out)
    if not found:
        raise InputError(
            f"no images in {' '.join(inputs)}; expected {' '.join(formats.suffixes())}"
        )
    if suffix is not None:
        suffix = formats.suffix_of_format(suffix)
    single = len(found) == 1 and out.suffix.lower() in formats.suffixes() and not out.is_dir()
    if single:
        if suffix not in (None, out.suffix.lower()):
            raise InputError(f"{out} contradicts --format {suffix.lstrip('.') if suffix else ''}")
        jobs = [Job(found[0][0], out)]
    else:
        if out.exists() and not out.is_dir():
            raise InputError(f"{out} is a file; {len(found)} inputs need a folder")
        jobs = _in_folder(found, out, suffix)
    if not overwrite_input:
        _refuse_inputs(jobs)
    return jobs


def _find(inputs: Sequence[str], *, recursive: bool, out: Path) -> list[tuple[Path, Path]]:
    """Every input with its place below `out`, once, in order."""
    found: dict[Path, Path] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            for file in _images_in(path, recursive, out):
                found.setdefault(file, file.relative_to(path))
        elif path.exists() or not glob.has_magic(given):
            found.setdefault(path, Path(path.name))  # a missing file fails when its turn comes
        else:
            matches = sorted(glob.glob(given, recursive=True))
            if not matches:
                raise InputError(f"nothing matches {given}")
            for match in map(Path, matches):
                if match.is_file() and match.suffix.lower() in formats.suffixes():
                    found.setdefault(match, Path(match.name))
    return list(found.items())


def _images_in(folder: Path, recursive: bool, out: Path) -> list[Path]:
    """The images of a folder, without the results that an output folder inside it holds.

    What has an image's name and is something else fails when its turn comes.
    """
    out = out.resolve()
    inside = out != folder.resolve() and out.is_relative_to(folder.resolve())
    paths = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in formats.suffixes()
        and not path.name.startswith(".")
        and not (inside and path.resolve().is_relative_to(out))
    )


def _in_folder(found: Sequence[tuple[Path, Path]], out: Path, suffix: str | None) -> list[Job]:
    """Results named after their inputs.

    Where two inputs would get one name, each keeps its own suffix in it (a.jpg.png), and if that is
    not enough, a number is added.
    """

    def wanted(place: Path) -> Path:
        kept = place.suffix if place.suffix.lower() in formats.suffixes() else ".png"
        return place.with_name(place.stem + (suffix or kept))

    def key(place: Path) -> str:
        return str(place).casefold()  # as file systems may see it

    claims: dict[str, int] = {}
    for _, place in found:
        claims[key(wanted(place))] = claims.get(key(wanted(place)), 0) + 1
    taken: set[str] = set()
    jobs = []
    for source, place in found:
        goal = wanted(place)
        if claims[key(goal)] > 1 and suffix:
            goal = place.with_name(place.name + suffix)
        goal = _numbered(goal, lambda path: key(path) in taken)
        taken.add(key(goal))
        jobs.append(Job(source, out / goal))
    return jobs


def _numbered(path: Path, is_taken: Callable[[Path], bool]) -> Path:
    number, candidate = 2, path
    while is_taken(candidate):
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate


def _refuse_inputs(jobs: Sequence[Job]) -> None:
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.goal.resolve() in sources:
            raise InputError(
                f"{job.goal} is an input and would be overwritten; choose another output, or give "
                "--overwrite-input"
            )
