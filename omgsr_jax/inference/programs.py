"""The compiled programs: weights on devices, and `restore` for one canvas after another."""

import copy
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..digests import Notify
from ..generator import OMGSR
from . import layout
from .canvases import Stage
from .restore import Restoration, Restored, restore


@dataclass(frozen=True)
class Item:
    """An image for a program."""

    pixels: np.ndarray  # h w 3
    stage: Stage  # its sizes


class Programs:
    """A generator's weights on the devices, and the programs compiled so far.

    Args:
        model: a generator whose adapters are merged.
        precision: "fp32", "bf16" or "int8", that of the weights.
        mesh: the devices, in groups that compute one batch together (see `layout`).
        notify: called with "compiling" and a program's name when that begins (and None), and when
            it has ended (and the seconds that it took).
    """

    def __init__(
        self, model: OMGSR, *, precision: str, mesh: Mesh, notify: Notify | None = None
    ):
        self.mesh = mesh
        self.compiled: dict[Restoration, Any] = {}
        self._compiling = threading.Lock()
        self.notify = notify or (lambda name, seconds: None)
        self._graph, state = nnx.split(model)
        self._weights_sharding = layout.state_shardings(state, mesh)
        self.weights = self._on_devices(state)
        self._products = _product_precision(precision, mesh)

    def as_published(self) -> "Programs":
        """Those of the same weights, which tell the backbone what the published code tells it."""
        model = nnx.merge(self._graph, self.weights)
        process = model.process.as_published()
        if process == model.process:
            return self
        model.process = process
        other = copy.copy(self)
        other._graph, other.compiled = nnx.split(model)[0], {}
        return other

    def run(self, how: Restoration, items: Sequence[Item], seed: int | None = None) -> Restored:
        """Restores at most as many images as `how` has in a batch; arrays are on the host.

        A batch moves to the devices once, and back once.
        """
        operands = jax.device_put(_operands(how, items, seed), self._operand_shardings(how))
        return jax.device_get(self.program(how)(self.weights, *operands))

    def program(self, how: Restoration) -> Callable[..., Restored]:
        """Compiled: weights, and what `_operands` gives, to restored images."""
        if how not in self.compiled:
            with self._compiling:  # of several threads one compiles, and the others wait for it
                if how not in self.compiled:
                    self.compile(how)
        return self.compiled[how]

    def compile(self, how: Restoration) -> None:
        self.notify(f"compiling {how.canvas}", None)
        started = time.perf_counter()
        self.compiled[how] = self.trace(how).lower().compile()
        self.notify(f"compiling {how.canvas}", time.perf_counter() - started)

    def trace(self, how: Restoration) -> Any:
        """A program before it is lowered for a platform."""
        jitted = jax.jit(
            self.function(how),
            in_shardings=(self._weights_sharding, *self._operand_shardings(how)),
            out_shardings=self.image_sharding(how),
        )
        with jax.set_mesh(self._mesh(how)), jax.default_matmul_precision(self._products):
            return jitted.trace(self.weights, *operand_shapes(how))

    def function(self, how: Restoration) -> Callable[..., Restored]:
        """What is compiled: pure, and of the weights."""

        def run(weights: nnx.State, images: Array, *more: Array) -> Restored:
            given = dict(zip(_optional_operands(how), more, strict=True))
            return restore(nnx.merge(self._graph, weights), images, how, **given)

        return run

    def image_sharding(self, how: Restoration) -> NamedSharding:
        """Of what a program is given and gives."""
        return NamedSharding(self._mesh(how), _by_image(how))

    def _operand_shardings(self, how: Restoration) -> tuple[NamedSharding, ...]:
        mesh, spec = self._mesh(how), _by_image(how)
        each = {"images": spec, "sizes": spec, "seed": PartitionSpec()}
        return tuple(NamedSharding(mesh, each[name]) for name in _operand_names(how))

    def _mesh(self, how: Restoration) -> Mesh:
        """The devices in groups, or all of them for the rows of one image."""
        return layout.by_rows(self.mesh) if how.canvas.by_rows else self.mesh

    def _on_devices(self, state: nnx.State) -> nnx.State:
        """Weights on their devices. Mere shapes stay: they do to compile for other machines."""
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state)):
            return state
        return jax.device_put(state, self._weights_sharding)


def operand_shapes(how: Restoration) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Of what a program is called with, behind the weights."""
    shapes = {
        "images": ((how.batch, *how.canvas.extent.source, 3), how.given),
        "sizes": ((how.batch, 3, 2), "int32"),
        "seed": ((2,), "uint32"),
    }
    return tuple(
        jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
        for shape, dtype in map(shapes.__getitem__, _operand_names(how))
    )


def _operand_names(how: Restoration) -> tuple[str, ...]:
    return "images", *_optional_operands(how)


def _optional_operands(how: Restoration) -> tuple[str, ...]:
    wanted = {"sizes": how.canvas.shared, "seed": how.sampled}
    return tuple(name for name, is_wanted in wanted.items() if is_wanted)


def _operands(how: Restoration, items: Sequence[Item], seed: int | None) -> tuple[np.ndarray, ...]:
    """Images in the corners of their canvases. What is missing of a batch is the first again."""
    filled = [*items, *[items[0]] * (how.batch - len(items))]
    shapes = dict(zip(_operand_names(how), operand_shapes(how), strict=True))
    images = np.zeros(shapes["images"].shape, shapes["images"].dtype)
    for image, item in zip(images, filled, strict=True):
        height, width = item.stage.source
        image[:height, :width] = item.pixels
    operands = [images]
    if how.canvas.shared:
        operands.append(np.array([item.stage for item in filled], np.int32))
    if seed is not None:
        operands.append(np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32))
    return tuple(operands)


def _by_image(how: Restoration) -> PartitionSpec:
    return PartitionSpec() if how.canvas.by_rows else PartitionSpec("data")


def _product_precision(precision: str, mesh: Mesh) -> str | None:
    """TPUs and GPUs would otherwise take products of fp32 numbers with fewer bits.

    On CPUs the highest precision would only forbid the faster convolutions: it is left to the user.
    """
    if mesh.devices.flat[0].platform == "cpu":
        return jax.config.values["jax_default_matmul_precision"]
    return "highest" if precision == "fp32" else "default"
