"""`load` and `Upscaler`: one-step upscaling of pictures of any size."""

import contextlib
import copy
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
from . import colour, images, layout, pictures
from .engine import Engine, NotFiniteError, TilePolicy, Work
from .options import Options, require_batch, require_color, require_precision, require_tile
from .pictures import Picture, resize
from .prepare import for_inference
from .programs import Programs
from .published import PublishedTiling, Script
from .sizes import Enlargement, Size, padded, process_size, stages


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
        tile: when the VAE works in tiles: "auto" (when memory is short), "off", or a tile's side.
        batch: images, or tiles, that are computed at once on each device, or group of devices.
        mesh: by default all local devices, each with all weights.
        notify: called with what takes long ("compiling whole 512x512") and None when it begins, and
            with the seconds that it took at the end.
    """

    def __init__(
        self,
        model: OMGSR,
        process_size: int,
        *,
        color: str,
        precision: str = "fp32",
        tile: str | int = "auto",
        batch: int = 1,
        mesh: Mesh | None = None,
        notify: Notify | None = None,
    ):
        self.process_size = process_size
        require_color(color)
        self.color = color
        mesh = mesh or layout.device_groups(None, 1)
        self.programs = Programs(model, precision=precision, batch=batch, mesh=mesh, notify=notify)
        require_tile(tile, self.programs.multiple)
        self.engine = Engine(self.programs, process_size, TilePolicy(tile))
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
        other._script = Script(self.process_size, self.engine.multiple)
        other.programs = self.programs.as_published()
        other.engine = Engine(
            other.programs, self.process_size, self.engine.policy, PublishedTiling()
        )
        return other

    def _with(self, quirks: Quirks) -> "Upscaler":
        require_quirks(quirks)
        return self.published if quirks else self

    def plan(self, sizes: Iterable[Size], options: Options) -> None:
        """Says which sizes (height, width) will come, so that few programs serve all of them."""
        needed = []
        for size in sizes:
            # An image that cannot be done fails when its turn comes.
            with contextlib.suppress(InputError):
                needed += self._process_sizes(size, options)
        self.engine.plan(padded(size, self.engine.multiple) for size in needed)

    def _process_sizes(self, size: Size, options: Options) -> list[Size]:
        if self._script:
            return [self._script.sizes(size, options.enlargement).processed]
        targets = stages(size, options.enlargement.of(size))
        return [process_size(target, self.process_size) for target in targets]

    def restore(self, batch: Sequence[Picture], options: Options) -> list[Upscaled]:
        """Upscales pictures with all that belongs to them."""
        goals = [options.enlargement.of(picture.size) for picture in batch]
        color = options.color or self.color
        if self._script:
            return self._follow(self._script, batch, options, color)
        targets = [stages(p.size, goal) for p, goal in zip(batch, goals, strict=True)]
        results = [Upscaled(picture, picture.size) for picture in batch]
        for stage in range(max(map(len, targets), default=0)):
            chosen = [i for i, sizes in enumerate(targets) if stage < len(sizes)]
            pairs = [(results[i].picture, targets[i][stage]) for i in chosen]
            try:
                restored = self._stage(pairs, color, options.seed)
            except NotFiniteError as error:
                raise NotFiniteError(error.stage, chosen[error.index]) from None
            for i, done in zip(chosen, restored, strict=True):
                work = _together(results[i].work, done.work) if stage else done.work
                results[i] = replace(done, work=work)
        return [
            replace(result, picture=_with_alpha_of(source, result.picture))
            for source, result in zip(batch, results, strict=True)
        ]

    def _stage(
        self, pairs: Sequence[tuple[Picture, Size]], color: str, seed: int | None
    ) -> list[Upscaled]:
        """Restores pictures at most four times as large, each to its own size."""
        sizes = [process_size(target, self.process_size) for _, target in pairs]
        started = time.perf_counter()
        sources = [
            np.clip(resize(picture.rgb, size), 0, 1)
            for (picture, _), size in zip(pairs, sizes, strict=True)
        ]
        canvas = [_pad(source * 2 - 1, self.engine.multiple) for source in sources]
        prepared = (time.perf_counter() - started) / len(pairs)
        restored, works = self.engine.restore(canvas, seed=seed)
        results = []
        for (picture, target), size, source, image, work in zip(
            pairs, sizes, sources, restored, works, strict=True
        ):
            started = time.perf_counter()
            rgb = image[: size[0], : size[1]] * 0.5 + 0.5
            rgb = colour.align(rgb, source, color)
            rgb = np.clip(resize(rgb, target), 0, 1)
            work.seconds |= {"prepare": prepared, "finish": time.perf_counter() - started}
            results.append(Upscaled(replace(picture, rgb=rgb), size, work))
        return results

    def _follow(
        self, script: Script, batch: Sequence[Picture], options: Options, color: str
    ) -> list[Upscaled]:
        sizes = [script.sizes(picture.size, options.enlargement) for picture in batch]
        pairs = list(zip(batch, sizes, strict=True))
        found = script.restore(self.engine, pairs, color=color, seed=options.seed)
        return [
            Upscaled(_with_alpha_of(picture, done), size.processed, work)
            for (picture, size), (done, work) in zip(pairs, found, strict=True)
        ]


def _pad(image: np.ndarray, multiple: int) -> np.ndarray:
    """Reflects the image beyond its bottom and right edges, up to the next multiples."""
    height, width = padded((image.shape[0], image.shape[1]), multiple)
    return np.pad(
        image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)), "reflect"
    )


def _with_alpha_of(source: Picture, result: Picture) -> Picture:
    if source.alpha is None:
        return result
    return replace(result, alpha=np.clip(resize(source.alpha, result.size), 0, 1))


def _together(first: Work, second: Work) -> Work:
    seconds = {
        stage: first.seconds.get(stage, 0) + second.seconds.get(stage, 0)
        for stage in first.seconds | second.seconds
    }
    return Work(
        seconds, first.latent_tiles + second.latent_tiles, first.vae_tiles + second.vae_tiles
    )


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
    tile: str | int = "auto",
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
        tile: when the VAE works in tiles, see `Upscaler`.
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
        tile=tile,
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
