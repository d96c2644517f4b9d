"""The corpus of images: files as programs write them and as attackers do, each with its answer.

A case says which pixels a reader shows, from the array that the file was made of, or the words of
the refusal that is due. All are small, and the same every time.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 12, 16


@dataclass(frozen=True, eq=False)
class Case:
    """One file. Either `pixels` or `says` holds."""

    name: str
    data: bytes | Callable[[Path], None]  # what makes it, where bytes alone cannot
    pixels: np.ndarray | None = None  # h w c, uint8 or uint16: grey, grey and alpha, RGB, or RGBA
    tolerance: float = 0  # of the mean difference, of 255 or of 65535
    says: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what is said beside a result

    def write(self, folder: Path) -> Path:
        path = folder / self.name
        if callable(self.data):
            self.data(path)
        else:
            path.write_bytes(self.data)
        return path


@cache
def noise(channels: int, bits: int = 8, seed: int = 0) -> np.ndarray:
    """h w c, every level as likely."""
    kind = np.uint16 if bits > 8 else np.uint8
    rng = np.random.default_rng([channels, bits, seed])
    return rng.integers(0, 2**bits, (HEIGHT, WIDTH, channels), kind)


@cache
def smooth(channels: int = 3) -> np.ndarray:
    """h w c, uint8: what a lossy format keeps nearly as it is."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / np.array([HEIGHT, WIDTH]).reshape(2, 1, 1)
    planes = [255 * x, 255 * y, 255 * (1 - x) * y, 60 + 195 * x]
    return np.stack(planes[:channels], axis=-1).round().astype(np.uint8)


def orientated(shown: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores that was held this way: the inverse of what a viewer does."""
    return _STORED[orientation](shown)


_STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.swapaxes(0, 1),
    6: lambda shown: np.rot90(shown, 1),
    7: lambda shown: shown[::-1, ::-1].swapaxes(0, 1),
    8: lambda shown: np.rot90(shown, -1),
}


def widened(samples: np.ndarray, bits: int) -> np.ndarray:
    """Samples of fewer than 8 bits as 8, and of 12 as 16."""
    if bits in (8, 16):
        return samples
    peak, kind = (255, np.uint8) if bits < 8 else (65535, np.uint16)
    return np.rint(samples / (2**bits - 1) * peak).astype(kind)


def with_key(samples: np.ndarray, key: tuple[int, ...], bits: int) -> np.ndarray:
    """What is shown of samples of which one colour is transparent."""
    shown = widened(samples, bits)
    opaque = (samples != np.array(key)).any(axis=-1, keepdims=True)
    return np.concatenate([shown, opaque * np.array(np.iinfo(shown.dtype).max, shown.dtype)], -1)


def all_cases() -> list[Case]:
    from . import image_cases_bad, image_cases_jpeg, image_cases_png, image_cases_tiff

    parts: list[Iterator[Case]] = [
        image_cases_png.cases(),
        image_cases_tiff.cases(),
        image_cases_jpeg.cases(),
        image_cases_bad.cases(),
    ]
    return list(_named_apart(case for part in parts for case in part))


def _named_apart(cases: Iterable[Case]) -> Iterator[Case]:
    """No two differ in their suffixes alone: some commands write PNGs of all."""
    taken = set()
    for case in cases:
        stem, suffix = case.name.rsplit(".", 1)
        if stem.casefold() in taken:
            stem = f"{stem}-{suffix}"
        assert stem.casefold() not in taken, f"two cases are named {stem}"
        taken.add(stem.casefold())
        yield replace(case, name=f"{stem}.{suffix}")
