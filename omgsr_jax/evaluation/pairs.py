"""Images of two or three folders, paired by name and checked before anything is computed.

Every problem of a benchmark's files is found from their headers and reported in one error: half an
hour of metrics should not end at a stray file.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import files
from ..files import DamagedImageError, decoding
from .errors import PairError

SHOWN = 5  # of each kind of problem; the rest is counted


@dataclass(frozen=True)
class Pair:
    """One image of a benchmark: an output and its reference, uint8 `h w 3`."""

    name: str
    sr: np.ndarray
    hr: np.ndarray


@dataclass(frozen=True)
class PairedFiles:
    """Matched files, and the size that output and reference share."""

    name: str
    sr: Path
    hr: Path
    lr: Path | None
    size: tuple[int, int]  # height, width

    def read(self) -> Pair:
        return Pair(self.name, read_opaque(self.sr), read_opaque(self.hr))


def find_pairs(
    sr_dir: str | Path,
    hr_dir: str | Path,
    lr_dir: str | Path | None = None,
    *,
    subset: bool = False,
) -> list[PairedFiles]:
    """Match files by name without suffix. `subset` allows references that have no output."""
    sr, hr = images_by_name(sr_dir), images_by_name(hr_dir)
    lr = images_by_name(lr_dir) if lr_dir is not None else None

    problems = _missing(f"output(s) in {sr_dir} without a reference in {hr_dir}", sr, hr)
    if not subset:
        absent = _missing(f"reference(s) in {hr_dir} without an output in {sr_dir}", hr, sr)
        if absent and not problems:
            absent.append("to score only the outputs that are there, pass subset=True (--subset)")
        problems += absent
    if lr is not None:
        problems += _missing(f"output(s) in {sr_dir} without an input in {lr_dir}", sr, lr)

    found, bad = [], []
    for name in sorted(sr.keys() & hr.keys()):
        source = lr.get(name) if lr is not None else None
        size, problem = _check(sr[name], hr[name], source)
        if problem:
            bad.append(f"{name}: {problem}")
        else:
            found.append(PairedFiles(name, sr[name], hr[name], source, size))
    problems += _some("pair(s) that cannot be compared", bad)
    if problems:
        folders = dict.fromkeys(str(folder) for folder in (sr_dir, hr_dir, lr_dir) if folder)
        headline = f"the images of {' and '.join(folders)} cannot be paired:"
        raise PairError("\n".join([headline, *problems]))
    return sorted(found, key=lambda pair: pair.size)  # one size after another: one program each


def images_by_name(folder: str | Path) -> dict[str, Path]:
    """Name without suffix -> file, for the images directly in `folder`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise PairError(f"{folder} is not a folder.")
    found: dict[str, Path] = {}
    listing = files.images_in(folder, recursive=False)
    if mention := listing.mention():
        warnings.warn(mention, files.LeftOutWarning, stacklevel=1)  # once, whoever asks
    for path in map(Path, listing.images):
        if path.stem in found:
            raise PairError(
                f"{folder} has both {found[path.stem].name} and {path.name}: images are paired by "
                "name without suffix, so only one may stay."
            )
        found[path.stem] = path
    if not found:
        raise PairError(f"{folder} holds no images ({' '.join(files.suffixes())}).")
    return found


def read_opaque(path: Path) -> np.ndarray:
    """uint8 RGB `h w 3`, turned the way its EXIF orientation says."""
    try:
        with files.open_image(path) as image:
            decoded = decoding.decode(image, str(path))
    except DamagedImageError as error:
        raise PairError(str(error)) from error
    if decoded.is_transparent():
        raise PairError(f"{path} has transparent pixels: put it on a background first.")
    for note in decoded.notes:
        warnings.warn(note, files.LeftOutWarning, stacklevel=2)
    return decoded.rgb_over_white()


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of an image as displayed, from its header."""
    return _header(path).size


def in_batches(pairs: Iterable[Pair], batch_size: int) -> Iterator[list[Pair]]:
    """Consecutive pairs of one size, at most `batch_size` together."""
    batch: list[Pair] = []
    for pair in pairs:
        if pair.sr.shape != pair.hr.shape:
            sizes = f"the output is {_wxh(pair.sr.shape)}, the reference {_wxh(pair.hr.shape)}"
            raise PairError(f"{pair.name}: {sizes}")
        if batch and (len(batch) == batch_size or pair.hr.shape != batch[0].hr.shape):
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch


def _check(sr: Path, hr: Path, lr: Path | None) -> tuple[tuple[int, int], str]:
    """The common size, and what is wrong with this pair ("" if nothing)."""
    try:
        output, reference = _header(sr), _header(hr)
        lr_size = _header(lr).size if lr is not None else None
    except PairError as error:
        return (0, 0), str(error)
    sr_size, hr_size = output.size, reference.size
    if output.bits != reference.bits:
        return hr_size, (
            f"the output has {output.bits} bits per channel, the reference {reference.bits}"
        )
    if reference.bits != 8:
        return hr_size, (
            f"{reference.bits} bits per channel; the metrics are defined on 8-bit images"
        )
    if sr_size != hr_size:
        return hr_size, f"the output is {_wxh(sr_size)}, the reference {_wxh(hr_size)}"
    if lr_size and (lr_size[0] * hr_size[1] != lr_size[1] * hr_size[0] or lr_size > hr_size):
        return hr_size, f"the input is {_wxh(lr_size)}, no reduction of {_wxh(hr_size)}"
    return hr_size, ""


def _header(path: Path) -> files.Header:
    try:
        return files.header(path)
    except DamagedImageError as error:
        raise PairError(str(error)) from error


def _wxh(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"


def _missing(what: str, names: Iterable[str], among: Iterable[str]) -> list[str]:
    return _some(what, sorted(set(names) - set(among)))


def _some(what: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    more = [f"... and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return [f"{len(items)} {what}:"] + [f"  {item}" for item in [*items[:SHOWN], *more]]
