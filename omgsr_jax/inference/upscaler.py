"""One-step upscaling of pictures of any size."""

import contextlib
import copy
import functools
import itertools
import threading
import time
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jax.sharding import Mesh
from PIL import Image

from ..digests import Notify
from ..errors import InputError
from ..generator import OMGSR
from ..quirks import Quirks, require_quirks
from . import layout
from .canvases import Canvas, Stage
from .description import description
from .function import Function
from .inputs import name_of, picture_of
from .memory import Budget
from .options import (
    WHOLE,
    Options,
    for_each,
    require_batch,
    require_color,
    require_shifts,
    require_strips,
)
from .passes import Chunk, Machine, Passes
from .pictures import Picture, resize
from .programs import Item, Programs
from .progress import OnProgress, Telling, Watch
from .restore import Program, Restoration
from .results import NotFiniteError, Upscaled, Work
from .sizes import Enlargement, Size
from .ways import PLAIN, Way

_STAGES = ("encode", "predict", "decode")


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
        name: of the model, to be shown.
        shifts: predictions that each result is the mean of, see `restore.predict`.
        way: what is special about the model's recipe.
        without: see `Programs`; where it is there, calls may say strengths.
        strengths: those of calls that say none.
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
        name: str = "a model",
        shifts: int = 1,
        way: Way = PLAIN,
        without: OMGSR | None = None,
        strengths: tuple[float, float] | None = None,
    ):
        require_color(color)
        require_strips(strips)
        require_shifts(shifts, model.patch)
        self.process_size, self.color, self.strengths = process_size, color, strengths
        mesh = mesh or layout.device_groups(None, 1)
        self.programs = Programs(
            model, without=without, precision=precision, mesh=mesh, notify=notify
        )
        vae, is_cpu = model.vae.config, mesh.devices.flat[0].platform == "cpu"
        machine = Machine(mesh.shape["data"], batch, is_cpu=is_cpu)
        memory = functools.cache(lambda: Budget.of(mesh, vae, precision))
        self._passes = Passes(
            process_size,
            model.multiple,
            vae,
            machine,
            strips=strips,
            holds=lambda size: memory().holds(size, batch),
            way=way,
            shifts=shifts,
        )
        self._published: dict[str, Upscaler] = {}
        self._preparing = threading.Lock()
        self._description = description(name, model, process_size, precision, mesh)

    def __repr__(self) -> str:
        script = self._passes.script
        quirks = f", with the quirks of {script.name}" if script else ""
        return f"<Upscaler {self._description}{quirks}>"

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
        strengths: tuple[float, float] | None = None,
        on_progress: OnProgress | None = None,
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
            quirks: "v1" or "v2" reproduces what that version of the published script does where
                it is not correct (inference/published.py); by default what the model was loaded
                with.
            seed: sample the VAE's posterior with it; by default its mode is taken.
            strengths: of PiSA-SR's pixel and semantic adapters, if the model was loaded with some;
                by default those. None of them compiles anything.
            on_progress: called with a `Progress` between programs, in this thread. What it raises
                ends the work, and reaches the caller.

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
            strengths=strengths,
            on_progress=on_progress,
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
        strengths: tuple[float, float] | None = None,
        on_progress: OnProgress | None = None,
    ) -> list[Image.Image]:
        """Several images of any sizes, computed together; see `upscale`."""
        options = Options(Enlargement.asked(scale, longest_side, size), color, seed, strengths)
        batch = list(batch)
        loaded = [picture_of(image) for image in batch]
        upscaler = self.with_quirks(quirks)
        if len(loaded) > 1:
            upscaler.plan([picture.size for picture in loaded], options)
        try:
            results = upscaler.restore(loaded, options, on_progress)
            return [result.picture.image() for result in results]
        except NotFiniteError as error:
            name = name_of(batch[error.index], error.index, len(batch))
            raise NotFiniteError(error.stage, error.index, name) from None

    def function(
        self, size: Size, *, scale: float = 4, batch: int = 1, color: str | None = None
    ) -> Function:
        """What `upscale` does to images of one size (height, width), for arrays on the device.

        The result is that of `upscale`, bit for bit where `batch` is that of the model.
        """
        if self._passes.script:
            raise InputError("there is no function with quirks, whose steps need PIL")
        if self.strengths not in (None, WHOLE):
            raise InputError("there is no function with strengths other than 1 and 1")
        require_batch(batch)
        steps, groups = (
            self.steps(size, scale=scale, color=color, batch=batch),
            self._machine.groups,
        )
        if batch % groups and not all(how.canvas.by_rows for how in steps):
            raise InputError(f"batch must be a multiple of {groups} devices, not {batch}")
        return Function(self.programs, steps)

    def steps(
        self, size: Size, *, scale: float = 4, color: str | None = None, batch: int | None = None
    ) -> list[Restoration]:
        """The passes that images of one size (height, width) go through."""
        return self._passes.of_size(size, scale=scale, color=color or self.color, batch=batch)

    @property
    def batch(self) -> int:
        """How many images are computed at once."""
        return self._machine.per_group * self._machine.groups

    @property
    def _machine(self) -> Machine:
        return self._passes.machine

    def with_quirks(self, quirks: Quirks) -> "Upscaler":
        """This model on the same weights, restoring as that version of the published script does;
        None leaves it as it was loaded."""
        require_quirks(quirks)
        if quirks is None or (self._passes.script and self._passes.script.name == quirks):
            return self
        with self._preparing:  # once, though several threads may ask
            if quirks not in self._published:
                other = self._published[quirks] = copy.copy(self)
                other.programs = self.programs.as_published()
                other._passes = self._passes.as_published(quirks)
        return self._published[quirks]

    def plan(self, sizes: Iterable[Size], options: Options) -> None:
        """Says which sizes (height, width) will come, so that few programs serve all of them."""
        needed: list[Stage] = []
        for size in sizes:
            # An image that cannot be done fails when its turn comes.
            with contextlib.suppress(InputError):
                needed += self._passes.of(size, options.enlargement)
        self._passes.plan(needed)

    def canvas(self, size: Size, options: Options) -> tuple[Canvas, ...]:
        """The compiled shapes that an image of this size goes through: images of equal ones can
        share a batch."""
        return tuple(map(self._passes.place, self._passes.of(size, options.enlargement)))

    def alike(self, size: Size, options: Options) -> Hashable:
        """Equal for images that share a batch without waste: their canvases, and tiles on them."""
        stages = self._passes.of(size, options.enlargement)
        canvases = map(self._passes.place, stages)
        return tuple(
            (canvas, self._passes.tiles_on(canvas, stage))
            for canvas, stage in zip(canvases, stages, strict=True)
        )

    def warm(self, sizes: Iterable[Size]) -> None:
        """Compiles all that images take which fit canvases of these sizes (height, width), whatever
        is asked for. From now on such images alone are taken, and nothing is compiled."""
        for how in self._passes.settle(sizes):
            self.programs.warm(how)

    def restore(
        self,
        batch: Sequence[Picture],
        options: Options | Sequence[Options],
        on_progress: OnProgress | None = None,
    ) -> list[Upscaled]:
        """Upscales pictures with all that belongs to them, with the same options or each with its
        own; see `upscale` for `on_progress`."""
        asked = list(zip(batch, for_each(options, len(batch)), strict=True))
        passes = [self._passes.of(picture.size, one.enlargement) for picture, one in asked]
        results = [Upscaled(self._begun(picture, one), picture.size) for picture, one in asked]
        begun = [result.picture for result in results]
        chunks = self._chunks(begun, passes, [one for _, one in asked])
        watch = self._watch(chunks, on_progress)
        compiling = self.programs.prepare(
            (program for chunk in chunks for program in chunk.runs), watch
        )
        for chunk in chunks:
            seconds = {"compile": sum(compiling.pop(program, 0) for program in chunk.runs)}
            given = [results[i].picture for i in chunk.stages]
            restored = self._computed(chunk, given, seconds, watch)
            for i, done in zip(chunk.stages, restored, strict=True):
                results[i] = replace(done, work=results[i].work.with_more(done.work))
        return [
            replace(result, picture=self._ended(source, result.picture, one))
            for (source, one), result in zip(asked, results, strict=True)
        ]

    def _begun(self, picture: Picture, options: Options) -> Picture:
        if (script := self._passes.script) is None:
            return picture
        enlarged = script.enlarged(picture, script.sizes(picture.size, options.enlargement))
        return replace(enlarged, bits=8)

    def _ended(self, source: Picture, result: Picture, options: Options) -> Picture:
        if (script := self._passes.script) is not None:
            sizes = script.sizes(source.size, options.enlargement)
            result = script.reduced(result, source, sizes, options.color or self.color)
        if source.alpha is None:
            return result
        return replace(result, alpha=np.clip(resize(source.alpha, result.size), 0, 1))

    def _chunks(
        self,
        pictures: Sequence[Picture],
        passes: Sequence[Sequence[Stage]],
        each: Sequence[Options],
    ) -> list[Chunk]:
        """What is computed, in its order: each pass enlarges at most four times."""
        chunks = []
        for number in range(max(map(len, passes), default=0)):
            members: dict[tuple[Any, ...], dict[int, Stage]] = {}
            for i, (picture, stages) in enumerate(zip(pictures, passes, strict=True)):
                if number < len(stages):
                    how = self._how(picture, stages, number, each[i])
                    key = how, self._color(each[i]), each[i].seed, self._strengths(each[i])
                    members.setdefault(key, {})[i] = stages[number]
            for (how, color, seed, strengths), alike in members.items():
                left = iter(alike.items())
                for part in self._passes.divided(how, len(alike)):
                    some = dict(itertools.islice(left, part.batch))
                    chunks.append(Chunk(part, some, color, seed, strengths))
        return chunks

    def _how(
        self, picture: Picture, stages: Sequence[Stage], number: int, options: Options
    ) -> Restoration:
        """One pass of a picture; the last one rounds."""
        canvas = self._passes.place(stages[number])
        if self._passes.is_settled:
            return self._passes.of_any(canvas)
        is_last = number + 1 == len(stages)
        rounds = is_last and (not picture.grey or self._passes.script is not None)
        return self._passes.how(
            canvas,
            color=self._color(options),
            given="float32" if number else str(picture.values.dtype),
            stored=f"uint{picture.bits}" if rounds else "float32",  # grey is rounded as grey
            sampled=options.seed is not None,
        )

    def _strengths(self, options: Options) -> tuple[float, float] | None:
        if options.strengths is not None and self.strengths is None:
            raise InputError(
                "strengths are said for a model that was loaded without any: "
                "load(model, strengths=(1, 1))"
            )
        return options.strengths or self.strengths

    def _color(self, options: Options) -> str:
        """On the device."""
        color, script = options.color or self.color, self._passes.script
        return script.color_on_device(color) if script else color

    def _watch(self, chunks: Sequence[Chunk], on_progress: OnProgress | None) -> Watch:
        if on_progress is None:
            return Watch()
        planned: Counter[Program] = Counter()
        for chunk in chunks:
            planned.update(chunk.runs)
        return Telling(on_progress, self.programs.seconds, planned)

    def _computed(
        self,
        chunk: Chunk,
        pictures: Sequence[Picture],
        seconds: dict[str, float],
        watch: Watch,
    ) -> list[Upscaled]:
        """Args:
        seconds: what was done for the chunk before.
        """
        started, how = time.perf_counter(), chunk.how
        stages = list(chunk.stages.values())
        as_levels = how.encoding.given == "float32"
        pixels = [picture.rgb if as_levels else picture.values for picture in pictures]
        items = [Item(*of_one) for of_one in zip(pixels, stages, strict=True)]
        restored, finite = self.programs.run(
            how, items, chunk.seed, watch, chunk.color, chunk.strengths
        )
        for i, of_stages in zip(chunk.stages, finite, strict=False):
            if not of_stages.all():
                raise NotFiniteError(_STAGES[int(np.argmin(of_stages))], i)
        seconds = {**seconds, "compute": time.perf_counter() - started}
        each = {step: value / len(stages) for step, value in seconds.items()}
        results = []
        for values, picture, stage in zip(restored, pictures, stages, strict=False):
            result = replace(picture, values=values[: stage.target[0], : stage.target[1]])
            work = Work(dict(each), how.tiles_of([stage]), how.canvas.strips, how.canvas.padded)
            results.append(Upscaled(result, stage.process, work))
        return results
