"""How an image is restored: in which passes, on which canvases, by which programs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from ..generator import AnyVAEConfig
from .canvases import Canvas, Canvases, Stage
from .memory import STRIP
from .published import Script
from .relative_scripts import script_of
from .restore import Decoding, Encoding, Program, Restoration
from .sizes import Enlargement, Size, padded, process_size, stages
from .tiling import Tiles
from .ways import PLAIN, Way

_TILES_AT_ONCE = 4  # on accelerators, where a single one leaves units idle
_ROWS_FROM = 4  # times the area that a model was trained at: all devices work on one image


@dataclass(frozen=True)
class Machine:
    """What is computed on."""

    groups: int  # of devices, each of which can hold images of its own
    per_group: int  # images that a group computes at once
    is_cpu: bool


@dataclass(frozen=True)
class Chunk:
    """Images that are restored at once, and how."""

    how: Restoration
    stages: Mapping[int, Stage]  # the pass of each, by its number
    color: str
    seed: int | None
    strengths: tuple[float, float] | None = None

    @property
    def runs(self) -> dict[Program, int]:
        """Its programs, and how often each runs."""
        return self.how.runs(self.stages.values())


class Passes:
    """Args:
    process_size: the size that the model was trained at.
    multiple: what the networks need the sides of images to be multiples of.
    strips: the rows of a strip of the VAE, "off", or "auto" where `holds` decides.
    holds: whether the memory holds the VAE's maps for an image of a size.
    way: what is special about the model's recipe.
    shifts: how many predictions each result is the mean of.
    """

    def __init__(
        self,
        process_size: int,
        multiple: int,
        vae: AnyVAEConfig,
        machine: Machine,
        *,
        strips: str | int,
        holds: Callable[[Size], bool],
        way: Way = PLAIN,
        shifts: int = 1,
        script: Script | None = None,
    ):
        self.process_size, self.multiple = process_size, multiple
        self.machine = machine
        self.script = script
        self._way, self._shifts = way, shifts
        self._vae, self._strips, self._holds = vae, strips, holds
        self._tiling = script.tiling if script else way.tiling(vae.downsampling)
        self._canvases = Canvases(self._canvas)
        self.is_settled = False  # whether canvases and programs are those of `settle` alone

    def as_published(self, quirks: str) -> "Passes":
        """Those of a published script."""
        down = self._vae.downsampling
        patch = self.multiple // down
        return Passes(
            self.process_size,
            down,  # odd maps too: what the backbone cannot take, the script refuses
            self._vae,
            self.machine,
            strips=self._strips,
            holds=self._holds,
            way=self._way,
            shifts=self._shifts,
            script=script_of(quirks, self._way.recipe)(self.process_size, down, patch),
        )

    def of(self, size: Size, enlargement: Enlargement) -> list[Stage]:
        """One, or two beyond four times."""
        if self.script:
            return self.script.stages(size, enlargement)
        targets = stages(size, enlargement.of(size))
        return [
            Stage(source, process_size(target, self.process_size), target)
            for source, target in zip([size, *targets], targets, strict=False)
        ]

    def plan(self, passes: Iterable[Stage]) -> None:
        self._canvases.plan(passes)

    def settle(self, sizes: Iterable[Size]) -> list[Restoration]:
        """How all images are restored from now on: on canvases of these sizes, and no others."""
        canvases = self._canvases.settle(Stage(size, size, size) for size in sizes)
        self.is_settled = True
        return [self.of_any(canvas, of) for canvas in canvases for of in self._batches(canvas)]

    def _batches(self, canvas: Canvas) -> list[int]:
        """How many images there are programs for: one for each group of devices, and twice as many
        each time, up to those that they can take."""
        groups, most = 1 if canvas.by_rows else self.machine.groups, self.machine.per_group
        doubled = {min(2**power, most) for power in range(most.bit_length() + 1)}
        return sorted(groups * each for each in doubled)

    def of_any(self, canvas: Canvas, batch: int | None = None) -> Restoration:
        """The programs for images of any dtype, with any colours and seed."""
        return self.how(
            canvas, color=None, given="float32", stored="float32", sampled=None, batch=batch
        )

    def divided(self, how: Restoration, count: int) -> list[Restoration]:
        """What restores so many images: where batches of several sizes are compiled, in such that
        are full."""
        if not self.is_settled:
            return [how] * -(-count // how.batch)
        batches, found = self._batches(how.canvas), []
        while count > 0:
            batch = max((one for one in batches if one <= count), default=batches[0])
            found.append(self.of_any(how.canvas, batch))
            count -= batch
        return found

    def place(self, stage: Stage) -> Canvas:
        return self._canvases.place(stage)

    def of_size(
        self, size: Size, *, scale: float, color: str, batch: int | None = None
    ) -> list[Restoration]:
        """The passes of images of one size, on canvases of their own: from uint8 to uint8."""
        canvases = [*map(self._canvases.own, self.of(size, Enlargement(scale=scale)))]
        last = len(canvases) - 1
        return [
            self.how(
                canvas,
                color=color,
                given="float32" if number else "uint8",
                stored="uint8" if number == last else "float32",
                sampled=False,
                batch=batch,
            )
            for number, canvas in enumerate(canvases)
        ]

    def how(
        self,
        canvas: Canvas,
        *,
        color: str | None,
        given: str,
        stored: str,
        sampled: bool | None,
        batch: int | None = None,
    ) -> Restoration:
        """The programs for a canvas."""
        on_all = self.machine.per_group * (1 if canvas.by_rows else self.machine.groups)
        batch = batch or on_all
        how = Restoration(
            Encoding(canvas, batch, given, sampled, self._way.resizing),
            Decoding(canvas, batch, color, stored, self.script is not None, self._way.resizing),
            self._tiling,
            shifts=self._shifts,
        )
        return replace(how, tiles_at_once=self._tiles_at_once(canvas, how.tiles))

    def tiles_on(self, canvas: Canvas, stage: Stage) -> int:
        """How many tiles an image on this canvas has."""
        return Tiles(canvas.tile, self._tiling).on(canvas.latents_of(stage))

    def _tiles_at_once(self, canvas: Canvas, tiles: Tiles) -> int:
        at_once = 1 if self.machine.is_cpu else max(1, _TILES_AT_ONCE // self.machine.per_group)
        if canvas.by_rows:  # then tiles are divided among the devices
            return at_once * self.machine.groups
        return min(at_once, tiles.turns(canvas.latents))

    def _canvas(self, stage: Stage, shared: bool) -> Canvas:
        """What the networks see of it, and how."""
        height, width = padded(stage.process, self.multiple)
        down = self._vae.downsampling
        size = self._way.tile_size or self.process_size
        side = padded((size,) * 2, self.multiple)[0] // down
        tile = self._tiling.shape((height // down, width // down), side)
        large = height * width >= _ROWS_FROM * self.process_size**2
        by_rows = large and self.machine.groups > 1
        canvas = Canvas(stage, tile, self.multiple, down, shared, by_rows=by_rows)
        return replace(canvas, strip=0 if by_rows else self._strip((height, width)))

    def _strip(self, size: Size) -> int:
        """The pixels of a strip, or 0."""
        if isinstance(self._strips, int):
            return self._strips * size[1]
        return 0 if self._strips == "off" or self._holds(size) else STRIP
