"""Restoring images of any size with a handful of programs.

An image goes through the VAE's encoder, one prediction per overlapping latent tile, and the VAE's
decoder. The VAE takes it whole on a canvas, if the memory allows, else in tiles. Canvases are
chosen for a whole list of images beforehand, so that few programs serve all of them.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from . import vae_tiles
from .programs import Programs, Tile
from .sizes import Size, padded
from .tiling import Tiling, blend, latent_tiles

MOST_PROGRAMS = 4
_WASTE = 1.3  # how much larger than an image a canvas may be before a better one is considered
_INNER_STEP = 512
_MAPS = 5
_TILES = (2048, 1536, 1024, 768, 512)


@dataclass
class Work:
    """What it took to restore an image."""

    seconds: dict[str, float] = field(default_factory=dict)
    latent_tiles: int = 0
    vae_tiles: int = 1


class NotFiniteError(InputError):
    """A stage gave NaN or infinity for one of the images: their `index`."""

    def __init__(self, stage: str, index: int, name: str | None = None):
        super().__init__(
            f"{f'{name}: ' if name else ''}what the model's {stage} stage gives is not finite (NaN "
            "or infinity): its weights are damaged, or too large for this precision. Try precision "
            "fp32, or convert the model again."
        )
        self.stage, self.index = stage, index


@dataclass(frozen=True)
class TilePolicy:
    """When the VAE works in tiles: "auto" (when memory is short), "off", or always at a size."""

    tile: str | int = "auto"
    memory: float | None = None  # bytes that may be used; by default what the device has


class Engine:
    """Args:
    programs: the generator's programs.
    process_size: the side of the backbone's tiles, in pixels.
    policy: when the VAE works in tiles.
    tiling: how the backbone's tiles are cut and weighed.
    """

    def __init__(
        self,
        programs: Programs,
        process_size: int,
        policy: TilePolicy,
        tiling: Tiling | None = None,
    ):
        downsampling = programs.config.downsampling
        self.programs = programs
        self.policy = policy
        self.tiling = tiling or Tiling()
        self.multiple = programs.multiple
        self.latent_tile = padded((process_size,) * 2, self.multiple)[0] // downsampling
        self.memory = policy.memory or _free_memory(programs)
        self._choosing = threading.Lock()
        self._canvases: list[Size] = []
        self._inner: Size | None = None
        self._placed: dict[Size, Size | None] = {}

    def restore(
        self,
        images: Sequence[np.ndarray],
        *,
        seed: int | None = None,
    ) -> tuple[list[np.ndarray], list[Work]]:
        """Images (h w 3 in [-1, 1], sides multiples of `multiple`) to restored ones.

        The posterior's mode is taken, or a sample of it where a seed is given.
        """
        works = [Work() for _ in images]
        canvases = [self.place(_size(image)) for image in images]
        with _timed(works, "encode"):
            posteriors = self._through_vae(images, canvases, works, encode=True)
            _require_finite(posteriors, "encode")
        z_l = [self._latents(posterior, seed) for posterior in posteriors]
        with _timed(works, "predict"):
            z_p = self._predict(z_l, works)
            _require_finite(z_p, "predict")
        with _timed(works, "decode"):
            restored = self._through_vae(z_p, canvases, works, encode=False)
            _require_finite(restored, "decode")
        return restored, works

    def _latents(self, posterior: np.ndarray, seed: int | None) -> np.ndarray:
        z, log_variance = np.split(posterior, 2, axis=-1)
        if seed is not None:
            noise = np.random.default_rng(seed).standard_normal(z.shape, np.float32)
            z = z + np.exp(0.5 * np.clip(log_variance, -30, 20)) * noise
        config = self.programs.config
        return (z - config.shift_factor) * config.scaling_factor

    def _predict(self, z_l: Sequence[np.ndarray], works: Sequence[Work]) -> list[np.ndarray]:
        """z_P of whole images from that of their tiles (the paper's Tiled Diffusion).

        z_P is linear in the prediction, so blending one is blending the other.
        """
        places: list[list[tuple[int, int]]] = []
        cut: dict[Size, list[np.ndarray]] = {}
        sizes = [self.tiling.shape(_size(z), self.latent_tile) for z in z_l]
        for z, size, work in zip(z_l, sizes, works, strict=True):
            square = size[0] == size[1]
            places.append(latent_tiles(_size(z), size[0]) if square else [(0, 0)])
            work.latent_tiles += len(places[-1])
            tiles = cut.setdefault(size, [])
            tiles += [z[top : top + size[0], left : left + size[1]] for top, left in places[-1]]
        predicted = {size: iter(self.programs.predict(tiles)) for size, tiles in cut.items()}
        return [
            next(predicted[size])
            if len(corners) == 1
            else blend(
                _size(z),
                zip(corners, predicted[size], strict=False),
                self.tiling.weights(size[0]),
            )
            for z, size, corners in zip(z_l, sizes, places, strict=True)
        ]

    def _through_vae(
        self,
        arrays: Sequence[np.ndarray],
        canvases: Sequence[Size | None],
        works: Sequence[Work],
        *,
        encode: bool,
    ) -> list[np.ndarray]:
        """Encodes images to posteriors, or decodes latents to images."""
        results: dict[int, np.ndarray] = {}
        for canvas in dict.fromkeys(canvases):
            chosen = [i for i, other in enumerate(canvases) if other == canvas]
            if canvas is None:
                for i in chosen:
                    results[i], works[i].vae_tiles = self._in_tiles(arrays[i], encode)
            else:
                tiles = [Tile(arrays[i]) for i in chosen]
                outcome = self.programs.vae("whole", canvas, tiles, encode=encode)
                results |= {i: found for i, (found, _) in zip(chosen, outcome, strict=True)}
        return [results[i] for i in range(len(arrays))]

    def _in_tiles(self, array: np.ndarray, encode: bool) -> tuple[np.ndarray, int]:
        assert self._inner is not None
        canvas = (self.tile, self.tile)
        run = vae_tiles.encode if encode else vae_tiles.decode
        return run(self.programs, array, canvas, self._inner)

    # Which canvases there are.

    @property
    def tile(self) -> int:
        """The side of the VAE's tiles."""
        if isinstance(self.policy.tile, int):
            return self.policy.tile
        fitting = (side for side in _TILES if self._fits_memory((side, side)))
        return next(fitting, _TILES[-1])

    def plan(self, sizes: Iterable[Size]) -> None:
        """Chooses canvases for images of these sizes, beside those that there are already."""
        if self.policy.tile == "off":
            return
        with self._choosing:
            wanted = Counter(size for size in sizes if not self._is_close(self._best(size), size))
            whole = {size: n for size, n in wanted.items() if self._may_be_whole(size)}
            tiled = [size for size in wanted if size not in whole]
            while room := self._room(tiled=bool(tiled)):  # else each is placed when it comes
                clusters = _merge(whole, room, self._may_be_whole)
                if len(clusters) <= room:
                    self._canvases += clusters
                    break
                largest = max(whole, key=lambda size: size[0] * size[1])
                tiled.append(largest)
                del whole[largest]
            for size in tiled:
                self._grow_inner(size)

    def place(self, size: Size) -> Size | None:
        """The canvas for an image of this size, or None if the VAE has to take it in tiles.

        Once chosen it stays, so that an image's result never depends on what came in between.
        """
        if self.policy.tile == "off":
            return size
        with self._choosing:
            if size not in self._placed:
                self._placed[size] = self._choose(size)
            return self._placed[size]

    def _choose(self, size: Size) -> Size | None:
        best = self._best(size)
        if self._is_close(best, size):
            return best
        if self._room(tiled=False) and self._may_be_whole(size):
            self._canvases.append(size)
            return size
        if best is not None:
            return best
        # More than was planned: canvases that soon serve everything.
        larger = (_power_of_two(size[0]), _power_of_two(size[1]))
        if self._may_be_whole(larger):
            self._canvases.append(larger)
            return larger
        self._grow_inner(size)
        return None

    def _best(self, size: Size) -> Size | None:
        fitting = [c for c in self._canvases if c[0] >= size[0] and c[1] >= size[1]]
        return min(fitting, key=lambda c: c[0] * c[1], default=None)

    def _is_close(self, canvas: Size | None, size: Size) -> bool:
        return canvas is not None and canvas[0] * canvas[1] <= _WASTE * size[0] * size[1]

    def _room(self, *, tiled: bool) -> int:
        """How many canvases may be added; `tiled` where tiles will be needed, too."""
        return max(0, MOST_PROGRAMS - 1 - len(self._canvases) - 2 * bool(self._inner or tiled))

    def _grow_inner(self, size: Size) -> None:
        now = self._inner or (0, 0)
        if size[0] > now[0] or size[1] > now[1]:
            larger = (max(now[0], size[0]), max(now[1], size[1]))
            self._inner = padded(larger, max(_INNER_STEP, self.multiple))

    def _may_be_whole(self, size: Size) -> bool:
        if isinstance(self.policy.tile, int):
            return max(size) <= self.policy.tile
        return self._fits_memory(size)

    def _fits_memory(self, size: Size) -> bool:
        return whole_bytes(self.programs, size) <= self.memory


def _require_finite(arrays: Sequence[np.ndarray], stage: str) -> None:
    """Of what is on the host already. A sum is finite if all of its numbers are, and takes a
    millisecond for a million of them; they are far from where it could overflow."""
    for index, array in enumerate(arrays):
        if not np.isfinite(array.sum()):
            raise NotFiniteError(stage, index)


def whole_bytes(programs: Programs, size: Size) -> float:
    """An estimate of what the VAE needs for a batch of whole images: the decoder's last block.

    There, features of the two widest resolutions' channels meet at the image's resolution, in fp32
    while they are normalised. On CPUs up to five such maps were counted at once.
    """
    per_pixel = 4 * _MAPS * programs.config.channels_per_pixel
    items = programs.batch / programs.mesh.shape["data"]
    return items * size[0] * size[1] * per_pixel


def _free_memory(programs: Programs) -> float:
    """Bytes on one device for the networks' intermediate results."""
    device: Any = programs.mesh.devices.flat[0]
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return 0.8 * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    return 0.6 * available_on_host() / programs.mesh.size


def available_on_host(meminfo: Path = Path("/proc/meminfo")) -> float:
    """Bytes of memory that could be had, counting what only caches files (Linux tells)."""
    if meminfo.exists():
        amounts = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return 1024 * float(amounts["MemAvailable"].removesuffix("kB"))
    return 7e9


def _merge(sizes: dict[Size, int], room: int, allowed: Callable[[Size], bool]) -> dict[Size, int]:
    """Merges canvases until they are few enough, each time those that waste the least."""
    clusters = dict(sizes)

    def together(a: Size, b: Size) -> Size:
        return max(a[0], b[0]), max(a[1], b[1])

    def waste(a: Size, b: Size) -> float:
        both = together(a, b)
        return sum(clusters[c] * (both[0] * both[1] - c[0] * c[1]) for c in (a, b))

    while len(clusters) > room:
        pairs = [
            (a, b)
            for i, a in enumerate(clusters)
            for b in list(clusters)[i + 1 :]
            if allowed(together(a, b))
        ]
        if not pairs:
            break
        a, b = min(pairs, key=lambda pair: waste(*pair))
        count = clusters.pop(a) + clusters.pop(b)
        both = together(a, b)
        clusters[both] = clusters.get(both, 0) + count
    return clusters


def _power_of_two(length: int) -> int:
    return 1 << (length - 1).bit_length()


def _size(array: np.ndarray) -> Size:
    return array.shape[0], array.shape[1]


class _timed:  # noqa: N801
    """Shares the seconds that a block took between images, by their number."""

    def __init__(self, works: Sequence[Work], stage: str):
        self.works, self.stage = works, stage

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        each = (time.perf_counter() - self.started) / max(1, len(self.works))
        for work in self.works:
            work.seconds[self.stage] = work.seconds.get(self.stage, 0.0) + each
