"""What a loaded model is, in one line."""

from collections import Counter

import jax
from flax import nnx
from jax.sharding import Mesh

from ..generator import OMGSR


def description(name: str, model: OMGSR, process_size: int, precision: str, mesh: Mesh) -> str:
    kinds = Counter(device.device_kind for device in mesh.devices.flat)
    devices = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    t_m = str(model.t_m) if model.timestep_head is None else "adaptive"
    if model.timestep_factor != 1:
        t_m += f" x {model.timestep_factor:g}"
    return (
        f"{name}: {_network(model.vae)}, {_network(model.backbone)}, "
        f"t_m {t_m} of {model.process.timesteps}, "
        f"process size {process_size} px, {precision} on {devices}"
    )


def _network(network: nnx.Module) -> str:
    leaves = jax.tree.leaves(nnx.state(network))
    return f"{type(network).__name__} of {sum(leaf.size for leaf in leaves) / 1e6:.2f} M parameters"
