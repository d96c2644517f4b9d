"""The published recipes: what a base and its adapter imply where the user does not say.

A base is recognised by its scheduler's config, which survives renaming and fine-tuning: SD-Turbo
comes with a trailing Euler scheduler, SD2.1-base with a PNDM scheduler, FLUX.1 with a flow-matching
one. Both papers build on FLUX.1-dev: for an adapter of the first, say its mid-timestep (295), its
prompt and its process size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omgsr_jax.converted import ModelCard
from omgsr_jax.errors import InputError

V1_PROMPT = (
    "A high-resolution, 8K, ultra-realistic image with sharp focus, vibrant colors, "
    "and natural lighting."
)


@dataclass(frozen=True)
class Recipe:
    name: str
    mid_timestep: int
    prompt: str
    process_size: int
    color: str = ModelCard.color


SD_TURBO = Recipe("OMGSR-S (v1), SD-Turbo", 195, V1_PROMPT, 512)
SD21_BASE = Recipe("OMGSR-S (v2), SD2.1-base", 273, "", 512)
FLUX_DEV = Recipe("OMGSR-F (v2), FLUX.1-dev", 244, "", 1024)

_BY_SCHEDULER = {
    ("EulerDiscreteScheduler", "trailing"): SD_TURBO,
    ("PNDMScheduler", "leading"): SD21_BASE,
    ("FlowMatchEulerDiscreteScheduler", "leading"): FLUX_DEV,
}


def recipe_of(scheduler: Mapping[str, Any]) -> Recipe | None:
    """The recipe whose base has this scheduler_config.json."""
    said = scheduler.get("_class_name"), scheduler.get("timestep_spacing", "leading")
    return next((recipe for named, recipe in _BY_SCHEDULER.items() if named == said), None)


def complete(
    recipe: Recipe | None,
    *,
    mid_timestep: int | None,
    prompt: str | None,
    process_size: int | None,
) -> Recipe:
    """The user's choices, completed by the recipe."""
    given = {"mid_timestep": mid_timestep, "prompt": prompt, "process_size": process_size}
    if recipe is None:
        absent = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is None]
        if absent:
            raise InputError(
                f"this base belongs to no published recipe; say {' and '.join(absent)} yourself"
            )
        recipe = Recipe("custom", 0, "", 0)
    chosen = {name: value for name, value in given.items() if value is not None}
    return Recipe(**{**vars(recipe), **chosen})
