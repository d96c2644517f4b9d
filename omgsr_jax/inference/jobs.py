"""Which files to upscale, and where each result goes."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import LIST, Listing, Outputs, images_in, images_listed, refuse_other_kinds
from . import formats


@dataclass(frozen=True)
class Job:
    source: Path
    goal: Path
    comparison: Path | None = None  # source and result side by side


def plan(
    inputs: Sequence[str],
    out: str | os.PathLike[str],
    *,
    recursive: bool = False,
    format: str | None = None,
    suffix: str = "",
    overwrite_input: bool = False,
    compare: bool = False,
    notify: Callable[[str], None] | None = None,
) -> list[Job]:
    """Files, folders, globs and .txt lists to pairs of input and output.

    One file goes to `out` itself if that has an image's suffix, else into the folder `out`. A
    folder's tree is mirrored in `out`. Names are kept, and made different where two would meet.

    Args:
        format: of the outputs; by default that of each input.
        suffix: added to the names of outputs; inputs that are such outputs are left out.
        overwrite_input: let an output replace its own input.
        compare: plan a comparison beside each output, too.
        notify: told what a folder holds besides images.
    """
    refuse_other_kinds(out, formats.suffixes())
    given, out = os.fspath(out), Path(out)
    found = _find(inputs, recursive=recursive, out=out, notify=notify)
    if not found:
        raise InputError(
            f"no images in {' '.join(inputs)}; expected {' '.join(formats.suffixes())}"
        )
    ending = formats.suffix_of_format(format) if format is not None else None
    named = out.suffix.lower() in formats.suffixes() and not given.endswith(os.sep)
    if named and not os.path.isdir(out):
        if suffix:
            raise InputError(f"--suffix is for names in a folder, and {out} names one image")
        goals = [_single(found, out, ending)]
    else:
        if os.path.exists(out) and not os.path.isdir(out):
            raise InputError(f"{out} is a file; {len(found)} inputs need a folder")
        if suffix:
            results = {*_in_folder(found, out, ending, suffix)}
            found = [(source, place) for source, place in found if source not in results]
        goals = _in_folder(found, out, ending, suffix)
    outputs = Outputs(source for source, _ in found)
    for (source, _), goal in zip(found, goals, strict=True):
        outputs.claim(
            goal,
            replaces=source if overwrite_input else None,
            hint="choose another output, or give --overwrite-input to replace the input itself",
        )
    sheets = _comparisons(goals, outputs) if compare else [None] * len(goals)
    return [Job(f[0], goal, sheet) for f, goal, sheet in zip(found, goals, sheets, strict=True)]


def _find(
    inputs: Sequence[str], *, recursive: bool, out: Path, notify: Callable[[str], None] | None
) -> list[tuple[Path, Path]]:
    """Every input with its place below `out`, once, in order."""
    found: dict[Path, Path] = {}
    for given in inputs:
        path = Path(given)
        if os.path.isdir(path):
            # The results that an output folder inside it holds are no inputs.
            listing = images_in(path, recursive=recursive, leave_out=out)
            for file in map(Path, listing.images):
                found.setdefault(file, file.relative_to(path))
        elif path.suffix.lower() == LIST:
            for file in map(Path, images_listed(path)):
                found.setdefault(file, _below(path.parent, file))
            continue
        elif os.path.lexists(path) or not glob.has_magic(given):
            found.setdefault(path, Path(path.name))  # a missing file fails when its turn comes
            continue
        else:
            listing = _matches(given)
            for file in map(Path, listing.images):
                found.setdefault(file, Path(file.name))
        if notify and (mention := listing.mention()):
            notify(mention)
    return list(found.items())


def _matches(pattern: str) -> Listing:
    listing = Listing(pattern, formats.suffixes())
    for match in sorted(glob.glob(pattern, recursive=True)):
        if not os.path.isdir(match):
            listing.add(match)
    if not listing.images and not listing.passed_over:
        raise InputError(f"nothing matches {pattern}")
    return listing


def _below(folder: Path, file: Path) -> Path:
    """Where the result of a listed file goes: as it lies below its list, or by its name alone."""
    if file.is_relative_to(folder) and ".." not in (place := file.relative_to(folder)).parts:
        return place
    return Path(file.name)


def _single(found: Sequence[tuple[Path, Path]], out: Path, ending: str | None) -> Path:
    if len(found) > 1:
        raise InputError(f"{out} names one image, and there are {len(found)} inputs; name a folder")
    if ending not in (None, out.suffix.lower()):
        raise InputError(f"{out} contradicts --format {ending.lstrip('.') if ending else ''}")
    return out


def _in_folder(
    found: Sequence[tuple[Path, Path]], out: Path, ending: str | None, suffix: str
) -> list[Path]:
    """Results named after their inputs.

    Where two inputs would get one name, each keeps its own ending in it (a.jpg.png), and if that is
    not enough, a number is added.
    """

    def wanted(place: Path) -> Path:
        kept = place.suffix if place.suffix.lower() in formats.suffixes() else ".png"
        return place.with_name(place.stem + suffix + (ending or kept))

    def key(place: Path) -> str:
        return str(place).casefold()  # as file systems may see it

    first = [wanted(place) for _, place in found]
    claims = Counter(map(key, first))
    names = Outputs()  # apart from those of all the command: what is read is no reason to rename
    goals = []
    for (_, place), goal in zip(found, first, strict=True):
        if ending and claims[key(goal)] > 1:
            goal = place.with_name(place.name + suffix + ending)
        goals.append(names.claim(names.free(out / goal)))
    return goals


def _comparisons(goals: Sequence[Path], outputs: Outputs) -> list[Path | None]:
    """A name beside each result that neither a result, another comparison nor an input has."""
    return [
        outputs.claim(
            outputs.free(
                goal.with_name(f"{goal.stem}.compare.png"),
                goal.with_name(f"{goal.name}.compare.png"),
            )
        )
        for goal in goals
    ]
