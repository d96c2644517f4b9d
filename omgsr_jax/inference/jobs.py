"""Which files to upscale, and where each result goes."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import Listing, Outputs, images_in, refuse_other_kinds
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
    suffix: str | None = None,
    overwrite_input: bool = False,
    compare: bool = False,
    notify: Callable[[str], None] | None = None,
) -> list[Job]:
    """Files, folders and globs to pairs of input and output.

    One file goes to `out` itself if that has an image's suffix, else into the folder `out`. A
    folder's tree is mirrored in `out`. Names are kept, and made different where two would meet.

    Args:
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
    if suffix is not None:
        suffix = formats.suffix_of_format(suffix)
    outputs = Outputs(source for source, _ in found)
    named = out.suffix.lower() in formats.suffixes() and not given.endswith(os.sep)
    if named and not os.path.isdir(out):
        goals = [_single(found, out, suffix)]
    else:
        if os.path.exists(out) and not os.path.isdir(out):
            raise InputError(f"{out} is a file; {len(found)} inputs need a folder")
        goals = _in_folder(found, out, suffix)
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
        elif os.path.lexists(path) or not glob.has_magic(given):
            found.setdefault(path, Path(path.name))  # a missing file fails when its turn comes
            continue
        else:
            listing = Listing(given, formats.suffixes())
            for match in sorted(glob.glob(given, recursive=True)):
                if not os.path.isdir(match):
                    listing.add(match)
            if not listing.images and not listing.passed_over:
                raise InputError(f"nothing matches {given}")
            for file in map(Path, listing.images):
                found.setdefault(file, Path(file.name))
        if notify and (mention := listing.mention()):
            notify(mention)
    return list(found.items())


def _single(found: Sequence[tuple[Path, Path]], out: Path, suffix: str | None) -> Path:
    if len(found) > 1:
        raise InputError(f"{out} names one image, and there are {len(found)} inputs; name a folder")
    if suffix not in (None, out.suffix.lower()):
        raise InputError(f"{out} contradicts --format {suffix.lstrip('.') if suffix else ''}")
    return out


def _in_folder(found: Sequence[tuple[Path, Path]], out: Path, suffix: str | None) -> list[Path]:
    """Results named after their inputs.

    Where two inputs would get one name, each keeps its own suffix in it (a.jpg.png), and if that is
    not enough, a number is added.
    """

    def wanted(place: Path) -> Path:
        kept = place.suffix if place.suffix.lower() in formats.suffixes() else ".png"
        return place.with_name(place.stem + (suffix or kept))

    def key(place: Path) -> str:
        return str(place).casefold()  # as file systems may see it

    claims = Counter(key(wanted(place)) for _, place in found)
    names = Outputs()  # apart from those of all the command: what is read is no reason to rename
    goals = []
    for _, place in found:
        goal = wanted(place)
        if claims[key(goal)] > 1 and suffix:
            goal = place.with_name(place.name + suffix)
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
