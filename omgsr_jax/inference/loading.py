"""`load`: a model ready to upscale."""

import os
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from .. import assets, converted
from ..compile_cache import keep_compiled_programs
from ..digests import Notify
from ..generator import OMGSR
from ..quirks import Quirks, require_quirks
from . import layout
from .options import (
    require_batch,
    require_fidelity,
    require_precision,
    require_shifts,
    require_strengths,
)
from .prepare import for_inference, with_fidelity, without_adapter
from .upscaler import Upscaler
from .ways import Way


def load(
    model: str | os.PathLike[str] = assets.NANO,
    *,
    precision: str | None = None,
    strips: str | int = "auto",
    batch: int = 1,
    devices: Sequence[Any] | None = None,
    shards: int = 1,
    shifts: int = 1,
    fidelity: float = 0.0,
    strengths: tuple[float, float] | None = None,
    quirks: Quirks = None,
    notify: Notify | None = None,
) -> Upscaler:
    """A model, ready to upscale.

    Args:
        model: "nano", which comes with the package, or a converted model's directory, local or in
            a bucket (gs://...), or its name on the hub (user/name, or user/name@revision).
        precision: "fp32", "bf16", or "int8" for the backbone's weights and bf16 for the rest; by
            default bf16 on accelerators, fp32 on CPUs.
        strips: when the VAE works in strips of rows, see `Upscaler`.
        batch: how many images are computed at once, see `Upscaler`.
        devices: by default all local ones.
        shards: over how many devices the backbone's weights are divided, when it is too large for
            one; each reads its own part.
        shifts: predictions that each result is the mean of, up to 4 for FLUX and Z-Image, against
            a 16-px lattice; each takes the backbone's time again. See `Upscaler`.
        fidelity: from -1, freer, to 1, nearer to the photograph; 0 is the model as it was trained.
            It moves the mid-timestep and the adapters' strength, see `prepare.with_fidelity`.
        strengths: of PiSA-SR's pixel and semantic adapters, which each call may then say anew. They
            take the backbone's weights twice, and a second prediction where they are not 1 and 1.
        quirks: "v1" or "v2" for what that version of OMGSR's published script does where it is not
            correct, or a relative's recipe for its own script; see inference/published.py.
        notify: is told of compilations, and of comparing the weights of a large model with their
            digests; see `Upscaler`.
    """
    directory = assets.model_directory(model)
    require_batch(batch)
    require_quirks(quirks)
    keep_compiled_programs()
    mesh = layout.device_groups(devices, shards)
    if precision is None:
        precision = "fp32" if mesh.devices.flat[0].platform == "cpu" else "bf16"
    require_precision(precision)
    require_fidelity(fidelity)
    if strengths is not None:
        require_strengths(strengths)
    card = converted.read_card(directory)
    require_shifts(shifts, card.generator.backbone.patch)
    generator = with_fidelity(_read(directory, mesh, notify), fidelity)
    without = None if strengths is None else for_inference(without_adapter(generator), precision)
    generator = for_inference(generator, precision)
    upscaler = Upscaler(
        generator,
        card.process_size,
        color=card.color,
        precision=precision,
        strips=strips,
        batch=batch,
        mesh=mesh,
        notify=notify,
        name=os.fspath(model),
        shifts=shifts,
        way=Way.of(card),
        without=without,
        strengths=strengths,
    )
    return upscaler.with_quirks(quirks)


def _read(directory: str, mesh: Mesh, notify: Notify | None) -> OMGSR:
    """The model on the host, or divided over the devices."""
    if mesh.size == mesh.shape["data"]:
        return converted.read(directory, notify=notify)
    shapes = {name: leaf.shape for name, leaf in converted.stored_shapes(directory).items()}
    sharding = layout.shardings(shapes, mesh)
    return converted.read(directory, sharding=sharding.__getitem__, notify=notify)
