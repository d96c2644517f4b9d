"""The compiled programs: weights on devices, and parts of `restore` for one shape or another."""

import copy
import functools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..compile_options import compiler_options
from ..digests import Notify
from ..generator import OMGSR
from . import layout, restore
from .canvases import Stage
from .options import COLORS, WHOLE
from .progress import Watch
from .restore import Decoding, Encoding, Prediction, Program, Restoration
from .tiling import Sums, Tiles

_OF_ALL = ("seed", "samples", "color")  # operands without an axis for the batch


@dataclass(frozen=True)
class Item:
    """An image for a program."""

    pixels: np.ndarray  # h w 3
    stage: Stage  # its sizes


class Programs:
    """A generator's weights on the devices, and the programs compiled so far.

    Args:
        model: a generator whose adapters are merged.
        without: the same without the backbone's adapter, where its strength may be said.
        precision: "fp32", "bf16" or "int8", that of the weights.
        mesh: the devices, in groups that compute one batch together (see `layout`).
        notify: called with "compiling" and a program's name when that begins (and None), and when
            it has ended (and the seconds that it took).
    """

    def __init__(
        self,
        model: OMGSR,
        *,
        precision: str,
        mesh: Mesh,
        without: OMGSR | None = None,
        notify: Notify | None = None,
    ):
        self.mesh = mesh
        self.channels = model.vae.config.latent_channels
        self.compiled: dict[Program, Any] = {}
        self.seconds: dict[Program, float] = {}  # of their last runs that were watched
        self._compiling = threading.Lock()
        self.notify = notify or (lambda name, seconds: None)
        self._graph, state = nnx.split(model)
        self._weights_sharding = layout.state_shardings(state, mesh)
        self.weights = self._on_devices(state)
        self._without = None if without is None else self._sharing(nnx.split(without)[1])
        self._products = _product_precision(precision)

    def as_published(self) -> "Programs":
        """Those of the same weights, which tell the backbone what the published code tells it."""
        model = nnx.merge(self._graph, self.weights)
        process = model.process.as_published()
        if process == model.process:
            return self
        model.process = process
        other = copy.copy(self)
        other._graph, other.compiled, other.seconds = nnx.split(model)[0], {}, {}
        return other

    def prepare(self, programs: Iterable[Program], watch: Watch) -> dict[Program, float]:
        """Compiles those that are missing; the seconds that each was waited for."""
        missing = [program for program in dict.fromkeys(programs) if program not in self.compiled]
        took = {}
        for number, program in enumerate(missing):
            watch.compiling(number, len(missing))
            started = time.perf_counter()
            self.program(program)
            took[program] = time.perf_counter() - started
        return took

    def warm(self, how: Restoration) -> None:
        """Compiles all that running it takes, without running a network."""
        for program in how.runs([how.canvas.extent]):
            self.program(program)
        if how.canvas.latents != how.canvas.tile:
            z_l = np.zeros((how.batch, *how.canvas.latents, self.channels), np.float32)
            sizes = np.array([how.canvas.latents] * how.batch, np.int32)
            z_l, sizes = jax.device_put((z_l, sizes), self.image_sharding(how))
            # Two turns: the second begins with what the first has left.
            turns = 2 * how.tiles_at_once
            self._in_tiles(how, z_l, sizes, turns, Watch(), predict=lambda tiles: tiles)

    def run(
        self,
        how: Restoration,
        items: Sequence[Item],
        seed: int | None = None,
        watch: Watch | None = None,
        color: str | None = None,
        strengths: tuple[float, float] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Restores at most as many images as `how` has in a batch: b h w 3.

        Also tells of each whether what encode, predict and decode gave is finite: b 3. A batch
        moves to the devices once, and back once. `color` is for programs that have none,
        `strengths` for a model that was given without its adapter too.
        """
        filled = [*items, *[items[0]] * (how.batch - len(items))]
        operands = {"images": _together(filled, how), "latents": _latents(filled, how)}
        if how.canvas.shared:
            operands["sizes"] = np.array([item.stage for item in filled], np.int32)
        operands |= _said(how, seed, color)
        shardings = {name: self._sharding(how.encoding, name) for name in operands}
        on_device = jax.device_put(operands, shardings)
        tiles = how.tiles_of(item.stage for item in items)
        found = self.restored(
            how, tiles=tiles, watch=watch or Watch(), strengths=strengths, **on_device
        )
        images, *finite = jax.device_get(found)
        return images, np.concatenate(finite, axis=1)

    def restored(
        self,
        how: Restoration,
        images: Array,
        latents: Array,
        *,
        tiles: int,
        watch: Watch,
        strengths: tuple[float, float] | None = None,
        **more: Array,
    ) -> tuple[Array, Array, Array]:
        """`restore.restore` part by part, with each of them compiled; and what is finite."""
        given = {"images": images, **more}
        operands = [given[name] for name in self._operands(how.encoding)]
        source, z_l, encoded = watch.ran(how.encoding, lambda: self._call(how.encoding, *operands))
        predict = functools.partial(self._predicted, how.prediction, strengths)
        if how.canvas.latents == how.canvas.tile:
            z_p = watch.ran(how.prediction, lambda: predict(z_l))
        else:
            z_p = self._in_tiles(how, z_l, latents, tiles, watch, predict)
        behind = [more[name] for name in self._operands(how.decoding) if name in more]
        restored, decoded = watch.ran(
            how.decoding, lambda: self._call(how.decoding, z_p, source, *behind)
        )
        return restored, encoded, decoded

    def _predicted(
        self, program: Prediction, strengths: tuple[float, float] | None, z_l: Array
    ) -> Array:
        """z_P; with strengths, from what the network predicts with and without its adapter."""
        z_p = self._call(program, z_l)
        if self._without is None or strengths in (None, WHOLE):
            return z_p
        without = self.program(program)(self._without, z_l)
        return _mixed(z_l, without, z_p, np.array(strengths, np.float32))

    def _in_tiles(
        self,
        how: Restoration,
        z_l: Array,
        sizes: Array,
        tiles: int,
        watch: Watch,
        predict: Callable[[Array], Array],
    ) -> Array:
        begun, cut, added, mean = _steps(how.tiles)

        def turn(sums: Sums) -> Sums:
            next_tiles = jax.device_put(cut(z_l, sizes, sums), self._by_batch)
            found = predict(next_tiles)
            return added(sums, jax.device_put(found, z_l.sharding), sizes)

        sums, by = begun(z_l), how.tiles_at_once
        for done in range(0, tiles, by):
            sums = watch.ran(how.prediction, functools.partial(turn, sums), done, by, tiles)
        return mean(sums)

    def _call(self, program: Program, *operands: Array) -> Any:
        return self.program(program)(self.weights, *operands)

    def program(self, program: Program) -> Callable[..., Any]:
        if program not in self.compiled:
            with self._compiling:  # of several threads one compiles, and the others wait for it
                if program not in self.compiled:
                    self.compile(program)
        return self.compiled[program]

    def compile(self, program: Program) -> None:
        self.notify(f"compiling {program}", None)
        started = time.perf_counter()
        self.compiled[program] = self.trace(program).lower().compile()
        self.notify(f"compiling {program}", time.perf_counter() - started)

    def trace(self, program: Program) -> Any:
        """A program before it is lowered for a platform."""
        shapes, mesh = self._operands(program), self._mesh(program)
        jitted = jax.jit(
            self._function(program),
            in_shardings=(self._weights_sharding, *(self._sharding(program, n) for n in shapes)),
            out_shardings=self._sharding(program, "images"),
            compiler_options=compiler_options(mesh),
        )
        with jax.set_mesh(mesh), jax.default_matmul_precision(self._products):
            return jitted.trace(self.weights, *shapes.values())

    def _function(self, program: Program) -> Callable[..., Any]:
        def run(weights: nnx.State, *operands: Array) -> Any:
            model = nnx.merge(self._graph, weights)
            given = dict(zip(self._operands(program), operands, strict=True))
            if isinstance(program, Encoding):
                return restore.encode(model, how=program, **given)
            if isinstance(program, Decoding):
                return restore.decode(model, how=program, **given)
            return restore.predict(model, how=program, **given)

        return run

    def pure(self, how: Restoration) -> Callable[[nnx.State, Array], Array]:
        """`restore.restore` as a function of weights and images, for a canvas of one size."""

        def run(weights: nnx.State, images: Array) -> Array:
            with jax.default_matmul_precision(self._products):
                return restore.restore(nnx.merge(self._graph, weights), images, how)

        return run

    def _operands(self, program: Program) -> dict[str, jax.ShapeDtypeStruct]:
        """What a program is called with, behind the weights, by the names of `restore`."""
        b, c = program.batch, self.channels

        def array(*shape: int, dtype: str = "float32") -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))

        if isinstance(program, Prediction):
            return {"z_l": array(b, *program.tile, c)}
        canvas = program.canvas
        sizes = {"sizes": array(b, 3, 2, dtype="int32")} if canvas.shared else {}
        if isinstance(program, Decoding):
            source = array(b, *program.source, 3)
            color = {"color": array(dtype="int32")} if program.color is None else {}
            return {"z_p": array(b, *canvas.latents, c), "source": source, **sizes, **color}
        images = {"images": array(b, *canvas.extent.source, 3, dtype=program.given)}
        seed = {} if program.sampled is False else {"seed": array(2, dtype="uint32")}
        samples = {"samples": array(dtype="bool")} if program.sampled is None else {}
        return images | sizes | seed | samples

    def image_sharding(self, how: Restoration) -> NamedSharding:
        """Of the images that `restored` is given."""
        return self._sharding(how.encoding, "images")

    @property
    def _by_batch(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec("data"))

    def _sharding(self, program: Program, operand: str) -> NamedSharding:
        """Images by batch, or everywhere where all devices work on one."""
        everywhere = operand in _OF_ALL or _is_by_rows(program)
        spec = PartitionSpec() if everywhere else PartitionSpec("data")
        return NamedSharding(self._mesh(program), spec)

    def _mesh(self, program: Program) -> Mesh:
        """The devices in groups, or all of them for the rows of one image."""
        return layout.by_rows(self.mesh) if _is_by_rows(program) else self.mesh

    def _sharing(self, state: nnx.State) -> nnx.State:
        """Weights on their devices, those outside of the backbone the same as the model's own."""
        own = dict(self.weights.flat_state())
        leaves = {
            path: leaf if path[0] == "backbone" else own[path] for path, leaf in state.flat_state()
        }
        return self._on_devices(nnx.State.from_flat_path(leaves))

    def _on_devices(self, state: nnx.State) -> nnx.State:
        """Weights on their devices. Mere shapes stay: they do to compile for other machines."""
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state)):
            return state
        return jax.device_put(state, self._weights_sharding)


@jax.jit
def _mixed(z_l: Array, without: Array, z_p: Array, strengths: Array) -> Array:
    """What the two adapters take away from z_L, each as much of it as its strength says."""
    pixel, semantic = strengths
    return z_l + pixel * (without - z_l) + semantic * (z_p - without)


@functools.cache
def _steps(tiles: Tiles) -> tuple[Any, ...]:
    """`Tiles.begun`, `cut`, `added` and `mean`, each compiled when a shape needs it: all small."""
    return tuple(jax.jit(step) for step in (tiles.begun, tiles.cut, tiles.added, tiles.mean))


def _together(items: Sequence[Item], how: Restoration) -> np.ndarray:
    """Images in the corners of their canvases: b h w 3."""
    images = np.zeros((len(items), *how.canvas.extent.source, 3), how.encoding.given)
    for image, item in zip(images, items, strict=True):
        height, width = item.stage.source
        image[:height, :width] = item.pixels
    return images


def _said(how: Restoration, seed: int | None, color: str | None) -> dict[str, np.ndarray]:
    """What is the same for all images of a batch, and known only now."""
    said: dict[str, np.ndarray] = {}
    if how.encoding.sampled is not False:
        number = seed or 0
        said["seed"] = np.array([number >> 32 & 0xFFFFFFFF, number & 0xFFFFFFFF], np.uint32)
    if how.encoding.sampled is None:
        said["samples"] = np.array(seed is not None)
    if how.decoding.color is None:
        said["color"] = np.array(COLORS.index(color or "none"), np.int32)
    return said


def _latents(items: Sequence[Item], how: Restoration) -> np.ndarray:
    """The sizes of their latents: b 2."""
    return np.array([how.canvas.latents_of(item.stage) for item in items], np.int32)


def _is_by_rows(program: Program) -> bool:
    return not isinstance(program, Prediction) and program.canvas.by_rows


def _product_precision(precision: str) -> str | None:
    """TPUs and GPUs would otherwise take products of fp32 numbers with fewer bits. What the user
    has chosen counts."""
    chosen = jax.config.values["jax_default_matmul_precision"]
    return chosen or ("float32" if precision == "fp32" else "default")
