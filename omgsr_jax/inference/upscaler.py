"""One-step upscaling of pictures of any size."""

import contextlib
import copy
import functools
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from .. import assets, converted
from ..digests import Notify
from ..errors import InputError
from ..files import LeftOutWarning
from ..generator import OMGSR
from ..quirks import Quirks, require_quirks
from . import images, layout, memory, pictures
from .canvases import Canvas, Canvases, Stage
from .function import Function
from .options import Options, require_batch, require_color, require_precision, require_strips
from .pictures import Picture, resize
from .prepare import for_inference
from .programs import Item, Programs
from .published import PublishedTiling, Script
from .restore import Decoding, Encoding, Restoration
from .sizes import Enlargement, Size, padded, process_size, stages
from .tiling import Tiles, Tiling, tiles_of

_STAGES = ("encode", "predict", "decode")
_TILES_AT_ONCE = 4  # on accelerators, where a single one leaves units idle
_ROWS_FROM = 4  # times the area that a model was trained at: all devices work on one image


@dataclass
class Work:
    """What it took to restore an image."""

    seconds: dict[str, float] = field(default_factory=dict)
    latent_tiles: int = 0
    strips: int = 1  # of the VAE's widest maps

    def with_more(self, more: "Work") -> "Work":
        seconds = {
            step: self.seconds.get(step, 0) + more.seconds.get(step, 0)
            for step in self.seconds | more.seconds
        }
        return Work(seconds, self.latent_tiles + more.latent_tiles, max(self.strips, more.strips))


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
class Upscaled:
    """A result, and what it took."""

    picture: Picture
    process_size: Size  # what the networks worked on, in the last stage
    work: Work = field(default_factory=Work)


class Upscaler:
    """A loaded model. Programs are compiled when the first image needs them, and kept.

    Args:
        model: a generator whose adapters are merged.
        process_size: the size that the model was trained at.
        color: which colours of its source a result gets where none are asked for.
        precision: "fp32", "bf16" or "int8", that of the weights.
        strips: when the VAE works in strips of rows: "auto" (when memory is short), "off", or
            always, of so many rows.
        batch: images that are computed at once on each device, or group of devices.
        mesh: by default all local devices, each with all weights.
        notify: called with what takes long ("compiling 512x512") and None when it begins, and
            with the seconds that it took at the end.
    """

    def __init__(
        self,
        model: OMGSR,
        process_size: int,
        *,
        color: str,
        precision: str = "fp32",
        strips: str | int = "auto",
        batch: int = 1,
        mesh: Mesh | None = None,
        notify: Notify | None = None,
    ):
        require_color(color)
        require_strips(strips)
        self.process_size = process_size
        self.color = color
        self.multiple = model.multiple
        self._vae = model.vae.config
        self._strips = strips
        mesh = mesh or layout.device_groups(None, 1)
        self._groups = mesh.shape["data"]
        self.batch = batch * self._groups
        self._per_group = batch
        self.programs = Programs(model, precision=precision, mesh=mesh, notify=notify)
        self._memory = functools.cache(lambda: memory.Budget.of(mesh, self._vae, precision))
        self._tiling = Tiling()
        self._canvases = Canvases(self._canvas)
        self._script: Script | None = None
        self._published: Upscaler | None = None
        self._preparing = threading.Lock()

    def upscale(
        self,
        image: Any,
        *,
        scale: float | None = None,
        longest_side: int | None = None,
        size: tuple[int, int] | None = None,
        color: str | None = None,
        quirks: Quirks = None,
        seed: int | None = None,
    ) -> Image.Image:
        """One image, upscaled: exactly `scale` times (4 by default), or to a size.

        Args:
            image: a path, the bytes of a file, a file that is open for reading bytes (read from its
                beginning; it stays open, and stands afterwards where it stood), a PIL image, or an
                array: uint8, uint16, or float in [0, 1]; h w c.
            scale: 1 .. 8; more than 4 is done in two passes.
            longest_side: of the output, in pixels, in place of a scale.
            size: width and height of the output, in place of a scale.
            color: "adain", "wavelet", "lab" or "none"; by default what the model's card says.
            quirks: "published" reproduces the published script's roundings and truncations; by
                default what the model was loaded with.
            seed: sample the VAE's posterior with it; by default its mode is taken.

        Returns:
            An 8-bit PIL image with the input's transparency and greyness; its `info` has the
            profile, EXIF, XMP and resolution.
        """
        (result,) = self.upscale_batch(
            [image],
            scale=scale,
            longest_side=longest_side,
            size=size,
            color=color,
            quirks=quirks,
            seed=seed,
        )
        return result

    def upscale_batch(
        self,
        batch: Iterable[Any],
        *,
        scale: float | None = None,
        longest_side: int | None = None,
        size: tuple[int, int] | None = None,
        color: str | None = None,
        quirks: Quirks = None,
        seed: int | None = None,
    ) -> list[Image.Image]:
        """Several images of any sizes, computed together; see `upscale`."""
        options = Options(Enlargement.asked(scale, longest_side, size), color, seed)
        batch = list(batch)
        loaded = [picture_of(image) for image in batch]
        upscaler = self._with(quirks)
        if len(loaded) > 1:
            upscaler.plan([picture.size for picture in loaded], options)
        try:
            return [result.picture.image() for result in upscaler.restore(loaded, options)]
        except NotFiniteError as error:
            name = _name(batch[error.index], error.index, len(batch))
            raise NotFiniteError(error.stage, error.index, name) from None

    def function(
        self, size: Size, *, scale: float = 4, batch: int = 1, color: str | None = None
    ) -> Function:
        """What `upscale` does to images of one size (height, width), for arrays on the device.

        The result is that of `upscale`, bit for bit where `batch` is that of the model.
        """
        if self._script:
            raise InputError('there is no function with quirks="published", whose steps need PIL')
        require_batch(batch)
        steps = self.steps(size, scale=scale, color=color, batch=batch)
        if batch % self._groups and not all(how.canvas.by_rows for how in steps):
            raise InputError(f"batch must be a multiple of {self._groups} devices, not {batch}")
        return Function(self.programs, steps)

    def steps(
        self, size: Size, *, scale: float = 4, color: str | None = None, batch: int | None = None
    ) -> list[Restoration]:
        """The passes that images of one size (height, width) go through."""
        options = Options(Enlargement(scale=scale), color)
        canvases = [*map(self._canvases.own, self._stages(size, options.enlargement))]
        return [
            self._how(
                canvas,
                options,
                given="uint8" if number == 1 else "float32",
                stored="uint8" if number == len(canvases) else "float32",
                batch=batch,
            )
            for number, canvas in enumerate(canvases, 1)
        ]

    @property
    def published(self) -> "Upscaler":
        """This model on the same weights, restoring as the published script does."""
        if self._script:
            return self
        with self._preparing:  # once, though several threads may ask
            if self._published is None:
                self._published = self._as_published()
        return self._published

    def _as_published(self) -> "Upscaler":
        other = copy.copy(self)
        other._script = Script(self.process_size, self.multiple)
        other.programs = self.programs.as_published()
        other._tiling = PublishedTiling()
        other._canvases = Canvases(other._canvas)
        return other

    def _with(self, quirks: Quirks) -> "Upscaler":
        require_quirks(quirks)
        return self.published if quirks else self

    def plan(self, sizes: Iterable[Size], options: Options) -> None:
        """Says which sizes (height, width) will come, so that few programs serve all of them."""
        needed: list[Stage] = []
        for size in sizes:
            # An image that cannot be done fails when its turn comes.
            with contextlib.suppress(InputError):
                needed += self._stages(size, options.enlargement)
        self._canvases.plan(needed)

    def canvas(self, size: Size, options: Options) -> tuple[Canvas, ...]:
        """The compiled shapes that an image of this size goes through: images of equal ones can
        share a batch."""
        return tuple(map(self._canvases.place, self._stages(size, options.enlargement)))

    def _stages(self, size: Size, enlargement: Enlargement) -> list[Stage]:
        """The passes that it takes: one, or two beyond four times."""
        if self._script:
            processed = self._script.sizes(size, enlargement).processed
            return [Stage(processed, processed, processed)]
        targets = stages(size, enlargement.of(size))
        return [
            Stage(source, process_size(target, self.process_size), target)
            for source, target in zip([size, *targets], targets, strict=False)
        ]

    def _canvas(self, stage: Stage, shared: bool) -> Canvas:
        """What the networks see of it, and how."""
        height, width = padded(stage.process, self.multiple)
        down = self._vae.downsampling
        tile = self._tiling.shape((height // down, width // down), self._latent_tile)
        by_rows = self._groups > 1 and height * width >= _ROWS_FROM * self.process_size**2
        canvas = Canvas(stage, tile, self.multiple, down, shared, by_rows=by_rows)
        return replace(canvas, strip=0 if by_rows else self._strip((height, width)))

    @property
    def _latent_tile(self) -> int:
        return padded((self.process_size,) * 2, self.multiple)[0] // self._vae.downsampling

    def _strip(self, size: Size) -> int:
        """The pixels of a strip, or 0."""
        if isinstance(self._strips, int):
            return self._strips * size[1]
        fits = self._strips == "off" or self._memory().holds(size, self._per_group)
        return 0 if fits else memory.STRIP

    def _how(
        self, canvas: Canvas, options: Options, *, given: str, stored: str, batch: int | None = None
    ) -> Restoration:
        batch = batch or (self._per_group if canvas.by_rows else self.batch)
        truncates = self._script is not None
        color = options.color or self.color
        how = Restoration(
            Encoding(canvas, batch, given, sampled=options.seed is not None),
            Decoding(canvas, batch, color, stored, truncates),
            self._tiling,
        )
        return replace(how, tiles_at_once=self._tiles_at_once(canvas, how.tiles))

    def _tiles_at_once(self, canvas: Canvas, tiles: Tiles) -> int:
        on_cpu = self.programs.mesh.devices.flat[0].platform == "cpu"
        wanted = 1 if on_cpu else max(1, _TILES_AT_ONCE // self._per_group)
        if canvas.by_rows:  # then tiles are divided among the devices
            return wanted * self._groups
        return min(wanted, tiles.turns(canvas.latents))

    def restore(self, batch: Sequence[Picture], options: Options) -> list[Upscaled]:
        """Upscales pictures with all that belongs to them."""
        passes = [self._stages(picture.size, options.enlargement) for picture in batch]
        results = [Upscaled(self._begun(picture, options), picture.size) for picture in batch]
        for number in range(max(map(len, passes), default=0)):
            chosen = [i for i, stages in enumerate(passes) if number < len(stages)]
            is_last = [number + 1 == len(passes[i]) for i in chosen]
            given = [
                (results[i].picture, passes[i][number], last)
                for i, last in zip(chosen, is_last, strict=True)
            ]
            try:
                restored = self._one_pass(given, options)
            except NotFiniteError as error:
                raise NotFiniteError(error.stage, chosen[error.index]) from None
            for i, done in zip(chosen, restored, strict=True):
                results[i] = replace(done, work=results[i].work.with_more(done.work))
        return [
            replace(result, picture=self._ended(source, result.picture, options))
            for source, result in zip(batch, results, strict=True)
        ]

    def _begun(self, picture: Picture, options: Options) -> Picture:
        if self._script is None:
            return picture
        sizes = self._script.sizes(picture.size, options.enlargement)
        return replace(self._script.enlarged(picture, sizes), bits=8)

    def _ended(self, source: Picture, result: Picture, options: Options) -> Picture:
        if self._script is not None:
            sizes = self._script.sizes(source.size, options.enlargement)
            result = self._script.reduced(result, sizes)
        if source.alpha is None:
            return result
        return replace(result, alpha=np.clip(resize(source.alpha, result.size), 0, 1))

    def _one_pass(
        self, given: Sequence[tuple[Picture, Stage, bool]], options: Options
    ) -> list[Upscaled]:
        """Restores pictures at most four times as large; the last pass rounds."""
        programs: dict[Restoration, list[int]] = {}
        for i, (picture, stage, is_last) in enumerate(given):
            rounds = is_last and (not picture.grey or self._script is not None)
            stored = f"uint{picture.bits}" if rounds else "float32"  # grey is rounded as grey
            given_as = str(picture.values.dtype)
            canvas = self._canvases.place(stage)
            how = self._how(canvas, options, given=given_as, stored=stored)
            programs.setdefault(how, []).append(i)
        results: dict[int, Upscaled] = {}
        for how, members in programs.items():
            for start in range(0, len(members), how.batch):
                chunk = members[start : start + how.batch]
                results |= zip(chunk, self._computed(how, given, chunk, options.seed), strict=True)
        return [results[i] for i in range(len(given))]

    def _computed(
        self,
        how: Restoration,
        given: Sequence[tuple[Picture, Stage, bool]],
        chunk: Sequence[int],
        seed: int | None,
    ) -> list[Upscaled]:
        started = time.perf_counter()
        items = [Item(given[i][0].values, given[i][1]) for i in chunk]
        restored, finite = self.programs.run(how, items, seed)
        for i, of_stages in zip(chunk, finite, strict=False):
            if not of_stages.all():
                raise NotFiniteError(_STAGES[int(np.argmin(of_stages))], i)
        seconds = {"compute": (time.perf_counter() - started) / len(chunk)}
        results = []
        for values, i in zip(restored, chunk, strict=False):
            picture, stage, _ = given[i]
            height, width = stage.target
            tiles = tiles_of(how.canvas.latents_of(stage), how.canvas.tile)
            work = Work(dict(seconds), tiles, how.canvas.strips)
            result = replace(picture, values=values[:height, :width])
            results.append(Upscaled(result, stage.process, work))
        return results


def picture_of(image: Any) -> Picture:
    """What users call an image."""
    if isinstance(image, Picture):
        return image
    if isinstance(image, (str, os.PathLike)):
        picture = images.read(image)
    elif isinstance(image, Image.Image):
        picture = images.from_pil(image)
    elif isinstance(image, (bytes, bytearray, memoryview)) or hasattr(image, "read"):
        picture = images.decode(image)
    else:
        picture = pictures.from_array(image)
    for note in picture.notes:
        warnings.warn(note, LeftOutWarning, stacklevel=4)
    return picture


def _name(image: Any, index: int, count: int) -> str:
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    return f"image {index + 1} of {count}"


def load(
    model: str | os.PathLike[str] = assets.NANO,
    *,
    precision: str | None = None,
    strips: str | int = "auto",
    batch: int = 1,
    devices: Sequence[Any] | None = None,
    shards: int = 1,
    quirks: Quirks = None,
    notify: Notify | None = None,
) -> Upscaler:
    """A model, ready to upscale.

    Args:
        model: "nano", which comes with the package, or a converted model's directory, local or in
            a bucket (gs://...).
        precision: "fp32", "bf16", or "int8" for the backbone's weights and bf16 for the rest; by
            default bf16 on accelerators, fp32 on CPUs.
        strips: when the VAE works in strips of rows, see `Upscaler`.
        batch: how many images are computed at once, see `Upscaler`.
        devices: by default all local ones.
        shards: over how many devices the backbone's weights are divided, when it is too large for
            one; each reads its own part.
        quirks: "published" for what the published script does where that is not correct, see
            inference/published.py.
        notify: is told of compilations, and of comparing the weights of a large model with their
            digests; see `Upscaler`.
    """
    directory = assets.model_directory(model)
    if precision is None:
        precision = "fp32" if jax.default_backend() == "cpu" else "bf16"
    require_precision(precision)
    require_batch(batch)
    require_quirks(quirks)
    keep_compiled_programs()
    mesh = layout.device_groups(devices, shards)
    card = converted.read_card(directory)
    generator = for_inference(_read(directory, mesh, notify), precision)
    upscaler = Upscaler(
        generator,
        card.process_size,
        color=card.color,
        precision=precision,
        strips=strips,
        batch=batch,
        mesh=mesh,
        notify=notify,
    )
    return upscaler._with(quirks)


def _read(directory: str, mesh: Mesh, notify: Notify | None) -> OMGSR:
    """The model on the host, or divided over the devices."""
    if mesh.size == mesh.shape["data"]:
        return converted.read(directory, notify=notify)
    shapes = {name: leaf.shape for name, leaf in converted.stored_shapes(directory).items()}
    sharding = layout.shardings(shapes, mesh)
    return converted.read(directory, sharding=sharding.__getitem__, notify=notify)


def keep_compiled_programs() -> None:
    """Keeps compiled programs in the user's cache directory, unless JAX is told where already."""
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def cache_directory() -> Path:
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "omgsr-jax"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "omgsr-jax"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "omgsr-jax"
    return Path.home() / ".cache" / "omgsr-jax"
