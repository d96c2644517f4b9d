"""Where the weights of a backbone are, when it is too large for one device.

Within a group of devices (the axis `tensor`) every device holds a part of each large weight, and
they compute one image together; groups (the axis `data`) work on images of their own, or on the
rows of a large one (the axis `spatial`).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..errors import InputError
from ..models.ops.rows import SPATIAL
from ..models.stack import EACH
from ..weights import SPREADING, SUMMING, Rule, specs_by_name, weight_name

_HEADS = "tensor"

# Axes of a weight's last dimensions, by its name; the first rule that matches counts. Queries,
# keys, values and hidden features are divided; the layer behind them sums over the parts. A single
# block's output layer reads attention and hidden features side by side, which no even division of
# its input respects: there, the output is divided.
_BLOCKS = rf"^backbone\..*\b{EACH}\."
RULES: tuple[Rule, ...] = (
    (rf"{_BLOCKS}.*{SUMMING}\.kernel$", (_HEADS, None)),
    # Of a bias or a factor, the first of these is the axis of blocks.
    (rf"{_BLOCKS}.*(\.kernel|({SPREADING}|proj_mlp)\.(bias|factor))$", (None, _HEADS)),
    (r"", ()),
)


def device_groups(devices: Sequence[Any] | None, shards: int) -> Mesh:
    """A mesh of all local devices, or the given ones, in groups of `shards`."""
    devices = list(devices or jax.local_devices())
    if shards < 1 or len(devices) % shards:
        raise InputError(
            f"{len(devices)} devices cannot be divided into groups of {shards}; "
            "shards must divide their number"
        )
    return _mesh(np.array(devices).reshape(-1, 1, shards))


def devices_named(name: str) -> list[Any]:
    """The local devices that "cpu", "gpu" or "tpu" names, or the one that "gpu:1" names.

    What is not laid out on devices is then computed on the first of them. With "cpu", called
    before JAX computes anything, no GPU's memory is taken.
    """
    kind, _, index = name.partition(":")
    if kind == "cpu":
        jax.config.update("jax_platforms", "cpu")
    try:
        found = jax.local_devices(backend=kind)
    except RuntimeError:  # of a kind that is not there
        found = []
    if index:
        found = found[int(index) :][:1]
    if not found:
        there = ", ".join(f"{device.platform}:{i}" for i, device in enumerate(jax.local_devices()))
        raise InputError(f"there is no device {name}; expected one of {there}, or cpu")
    jax.config.update("jax_default_device", found[0])
    return found


def by_rows(groups: Mesh) -> Mesh:
    """The same devices, all groups for the rows of one image."""
    return _mesh(groups.devices.reshape(1, -1, groups.shape[_HEADS]))


def _mesh(devices: np.ndarray) -> Mesh:
    automatic = (jax.sharding.AxisType.Auto,) * 3
    return Mesh(devices, ("data", SPATIAL, _HEADS), axis_types=automatic)


def shardings(shapes: Mapping[str, tuple[int, ...]], mesh: Mesh) -> dict[str, NamedSharding]:
    """Of each weight, by its name. What cannot be divided evenly is on every device."""
    if mesh.shape[_HEADS] == 1:
        return dict.fromkeys(shapes, NamedSharding(mesh, PartitionSpec()))
    has_blocks = any(re.search(_BLOCKS, name) for name in shapes)
    specs = specs_by_name(shapes, RULES, mesh) if has_blocks else {}
    if not any(map(any, specs.values())):
        raise InputError("this model's weights cannot be divided over devices; use shards=1")
    return {name: NamedSharding(mesh, spec) for name, spec in specs.items()}


def state_shardings(state: nnx.State, mesh: Mesh) -> nnx.State:
    """The same for weights that are at hand, in their structure."""
    leaves = dict(state.flat_state())
    by_name = shardings({weight_name(path): leaf.shape for path, leaf in leaves.items()}, mesh)
    return nnx.State.from_flat_path(
        {path: leaf.replace(by_name[weight_name(path)]) for path, leaf in leaves.items()}
    )
