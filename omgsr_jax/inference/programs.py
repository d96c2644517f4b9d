"""The compiled programs: the only things here that run on a device.

    predict   the backbone on latent tiles
    whole     the VAE, on a canvas that holds an image
    outer     the outer half of the VAE, on a canvas that holds a tile of an image
    inner     its inner half, on a canvas that holds all latents of an image

A program is one `jax.jit` whose weights are arguments, data-parallel over the local devices.
Encoding and decoding share a program: its two buffers are the two ends of a part of the VAE, given
up by the caller and handed back with one of them computed from the other.
"""

import copy
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..digests import Notify
from ..generator import OMGSR
from . import canvas_vae, layout
from .canvas_vae import Items, Statistics
from .sizes import Size


@dataclass(frozen=True)
class Program:
    """A program's name: its kind, and its canvas (in latents for predict, in pixels else)."""

    kind: str
    canvas: Size

    def __str__(self) -> str:
        return f"{self.kind} {self.canvas[1]}x{self.canvas[0]}"


@dataclass(frozen=True)
class Tile:
    """An array for a VAE program, and what is known about it."""

    array: np.ndarray  # h w c
    core: tuple[int, int, int, int] | None = None  # in pixels of the canvas; by default all of it
    mode: int = canvas_vae.OWN  # what the group norms of an outer program use
    image: np.ndarray | None = None  # statistics of the whole image, k g 2
    before: np.ndarray | None = None  # the tile's own when those were counted, k g 2


class Programs:
    """A generator's weights on the devices, and the programs compiled so far.

    Args:
        model: a generator whose adapters are merged.
        precision: "fp32", "bf16" or "int8", that of the weights.
        mesh: the devices, in groups that compute one batch together (see `layout`).
        batch: items per program and group.
        notify: called with "compiling" and a program's name when that begins (and None), and when
            it has ended (and the seconds that it took).
    """

    def __init__(
        self,
        model: OMGSR,
        *,
        precision: str,
        mesh: Mesh,
        batch: int = 1,
        notify: Notify | None = None,
    ):
        self.mesh = mesh
        self.batch = batch * mesh.shape["data"]
        self.config = model.vae.config
        self.multiple = model.multiple
        self.compiled: dict[Program, Any] = {}
        self._compiling = threading.Lock()
        self.notify = notify or (lambda name, seconds: None)
        self._outer_norms = canvas_vae.outer_norms(model.vae)
        self._graph, state = nnx.split(model)
        self._state_sharding = layout.state_shardings(state, mesh)
        self._state = self._on_devices(state)
        self._products = _product_precision(precision, mesh)

    def as_published(self) -> "Programs":
        """Those of the same weights, which tell the backbone what the published code tells it."""
        model = nnx.merge(self._graph, self._state)
        process = model.process.as_published()
        if process == model.process:
            return self
        model.process = process
        other = copy.copy(self)
        other._graph, other.compiled = nnx.split(model)[0], {}
        return other

    def predict(self, tiles: Sequence[np.ndarray]) -> list[np.ndarray]:
        """z_P of latent tiles z_L (h w c), all of one shape."""
        results: list[np.ndarray] = []
        for chunk in self._chunks(tiles):
            batch = np.zeros((self.batch, *tiles[0].shape), np.float32)
            batch[: len(chunk)] = chunk
            z_p = self._run(Program("predict", tiles[0].shape[:2]), batch)
            results += list(np.asarray(z_p)[: len(chunk)])
        return results

    def vae(
        self, kind: str, canvas: Size, tiles: Sequence[Tile], *, encode: bool
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Runs a part of the VAE on arrays that are not larger than the canvas.

        Yields for each its result (h w c) and its group norms' statistics (k g 2; outer only).
        """
        ends = self._ends(kind)
        source, goal = ends if encode else ends[::-1]
        for chunk in self._chunks(tiles):
            buffers = [np.zeros(s.shape, s.dtype) for s in self._buffers(kind, canvas)]
            box = np.tile(np.array([0, canvas[0], 0, canvas[1]], np.int32), (self.batch, 1))
            for i, tile in enumerate(chunk):
                h, w, c = tile.array.shape
                buffers[0 if encode else 1][i, :h, :w, :c] = tile.array
                box[i] = 0, h * source, 0, w * source
            items = self._items(kind, box, chunk)
            outcome = self._run(Program(kind, canvas), np.bool_(encode), *buffers, items)
            result, counted = np.asarray(outcome[1 if encode else 0]), np.asarray(outcome[2])
            for i in range(len(chunk)):
                yield result[i, : box[i, 1] // goal, : box[i, 3] // goal], counted[:, i]

    def _items(self, kind: str, box: np.ndarray, chunk: Sequence[Tile]) -> Items:
        core = box.copy()
        for i, tile in enumerate(chunk):
            core[i] = tile.core or box[i]
        if kind != "outer":
            return Items(box, core)
        image, before = (np.ones(self._counted_shape, np.float32) for _ in range(2))
        for i, tile in enumerate(chunk):
            if tile.image is not None:
                image[:, i] = tile.image
            if tile.before is not None:
                before[:, i] = tile.before
        return Items(box, core, Statistics(np.int32(chunk[0].mode), image, before))

    def _chunks(self, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        for start in range(0, len(items), self.batch):
            yield items[start : start + self.batch]

    # The shapes of the programs' operands.

    def _ends(self, kind: str) -> tuple[int, int]:
        """How many pixels of the image stand behind one at either end of a part of the VAE."""
        down = self.config.downsampling
        return (down, down) if kind == "inner" else (1, down)

    def _buffers(self, kind: str, canvas: Size) -> list[jax.ShapeDtypeStruct]:
        features, latents = self.config.features, 2 * self.config.latent_channels
        channels = {"whole": (3, latents), "outer": (3, features), "inner": (features, latents)}
        return [
            jax.ShapeDtypeStruct(
                (self.batch, canvas[0] // ratio, canvas[1] // ratio, c), jnp.float32
            )
            for ratio, c in zip(self._ends(kind), channels[kind], strict=True)
        ]

    @property
    def _counted_shape(self) -> tuple[int, ...]:
        return max(self._outer_norms), self.batch, self.config.norm_num_groups, 2

    # Compiling and running.

    def _run(self, program: Program, *operands: Any) -> Any:
        if program not in self.compiled:
            with self._compiling:  # of several threads one compiles, and the others wait for it
                if program not in self.compiled:
                    self.compile(program)
        return self.compiled[program](self._state, *operands)

    def compile(self, program: Program) -> None:
        self.notify(f"compiling {program}", None)
        started = time.perf_counter()
        with jax.set_mesh(self.mesh):
            self.compiled[program] = self.trace(program).lower().compile()
        self.notify(f"compiling {program}", time.perf_counter() - started)

    def trace(self, program: Program) -> Any:
        """A program before it is lowered for a platform; to be used inside `jax.set_mesh`."""
        replicated, by_item = self._sharding(), self._sharding("data")
        if program.kind == "predict":
            function: Callable[..., Any] = self._predict
            shardings: tuple[Any, ...] = (by_item,)
            donated: tuple[int, ...] = ()
        else:
            statistics = self._sharding(None, "data")
            given = Statistics(replicated, statistics, statistics)
            items = Items(by_item, by_item, given if program.kind == "outer" else None)
            function = getattr(self, f"_{program.kind}")
            shardings = (replicated, by_item, by_item, items)
            donated = (2, 3)
        shardings = (self._state_sharding, *shardings)
        jitted = jax.jit(function, in_shardings=shardings, donate_argnums=donated)
        with jax.set_mesh(self.mesh), jax.default_matmul_precision(self._products):
            return jitted.trace(self._state, *self._operands(program))

    def _operands(self, program: Program) -> tuple[Any, ...]:
        """The shapes of what a program is called with, behind the weights."""
        if program.kind == "predict":
            shape = (self.batch, *program.canvas, self.config.latent_channels)
            return (jax.ShapeDtypeStruct(shape, jnp.float32),)
        box = jax.ShapeDtypeStruct((self.batch, 4), jnp.int32)
        counted = jax.ShapeDtypeStruct(self._counted_shape, jnp.float32)
        given = Statistics(jax.ShapeDtypeStruct((), jnp.int32), counted, counted)
        items = Items(box, box, given if program.kind == "outer" else None)
        buffers = self._buffers(program.kind, program.canvas)
        return (jax.ShapeDtypeStruct((), jnp.bool_), *buffers, items)

    def _on_devices(self, state: nnx.State) -> nnx.State:
        """Weights on their devices. Mere shapes stay: they do to compile for other machines."""
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state)):
            return state
        return jax.device_put(state, self._state_sharding)

    def _sharding(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    # What the programs compute.

    def _predict(self, state: nnx.State, z_l: Array) -> Array:
        return nnx.merge(self._graph, state).one_step(z_l)

    def _whole(
        self, state: nnx.State, encode: Array, image: Array, latents: Array, items: Items
    ) -> tuple[Array, Array, Array]:
        vae = nnx.merge(self._graph, state).vae

        def forth(image: Array, latents: Array) -> tuple[Array, Array]:
            features, _ = canvas_vae.encode_outer(vae, image, items)
            return image, canvas_vae.encode_inner(vae, features, items)

        def back(image: Array, latents: Array) -> tuple[Array, Array]:
            features = canvas_vae.decode_inner(vae, self._unscaled(latents), items)
            return _clipped(canvas_vae.decode_outer(vae, features, items)[0]), latents

        return *_either(encode, forth, back, image, latents), jnp.zeros((1, self.batch, 1, 2))

    def _inner(
        self, state: nnx.State, encode: Array, features: Array, latents: Array, items: Items
    ) -> tuple[Array, Array, Array]:
        vae = nnx.merge(self._graph, state).vae

        def forth(features: Array, latents: Array) -> tuple[Array, Array]:
            return features, canvas_vae.encode_inner(vae, features, items)

        def back(features: Array, latents: Array) -> tuple[Array, Array]:
            found = canvas_vae.decode_inner(vae, self._unscaled(latents), items)
            return found.astype(jnp.float32), latents

        return *_either(encode, forth, back, features, latents), jnp.zeros((1, self.batch, 1, 2))

    def _outer(
        self, state: nnx.State, encode: Array, image: Array, features: Array, items: Items
    ) -> tuple[Array, Array, Array]:
        vae = nnx.merge(self._graph, state).vae

        def padded(counted: Array) -> Array:
            missing = max(self._outer_norms) - len(counted)
            return jnp.pad(counted, ((0, missing), (0, 0), (0, 0), (0, 0)))

        def forth(image: Array, features: Array, _: Array) -> tuple[Array, Array, Array]:
            found, counted = canvas_vae.encode_outer(vae, image, items)
            return image, found.astype(jnp.float32), padded(counted)

        def back(image: Array, features: Array, _: Array) -> tuple[Array, Array, Array]:
            found, counted = canvas_vae.decode_outer(vae, features, items)
            return _clipped(found), features, padded(counted)

        return _either(encode, forth, back, image, features, jnp.zeros(self._counted_shape))

    def _unscaled(self, latents: Array) -> Array:
        """What the decoder reads of the buffer that also holds the posterior."""
        config = self.config
        z = latents[..., : config.latent_channels]
        return z / config.scaling_factor + config.shift_factor


def _clipped(image: Array) -> Array:
    """To [-1, 1]; an infinity becomes NaN, so that who looks at the result finds out."""
    return jnp.where(jnp.isfinite(image), jnp.clip(image, -1, 1), jnp.nan)


def _either(
    chosen: Array,
    forth: Callable[..., tuple[Array, ...]],
    back: Callable[..., tuple[Array, ...]],
    *state: Array,
) -> Any:
    """The state after `forth`, or else after `back`.

    As loops of one turn or none: on CPUs XLA divides the work in a loop's body among the cores, but
    not that in the branch of a conditional. The barrier keeps the work from being moved out of the
    loop, where it would always be done.
    """

    def turn(work: Callable[..., tuple[Array, ...]], i: Array, before: Any) -> Any:
        _, *held = lax.optimization_barrier((i, *before))
        return work(*held)

    turns = chosen.astype(jnp.int32)
    after: Any = lax.fori_loop(0, turns, partial(turn, forth), state)
    return lax.fori_loop(0, 1 - turns, partial(turn, back), after)


def _product_precision(precision: str, mesh: Mesh) -> str | None:
    """TPUs and GPUs would otherwise take products of fp32 numbers with fewer bits.

    On CPUs the highest precision would only forbid the faster convolutions: it is left to the user.
    """
    if mesh.devices.flat[0].platform == "cpu":
        return jax.config.values["jax_default_matmul_precision"]
    return "highest" if precision == "fp32" else "default"
