"""Which of the published recipes (recipe_table.py) is taken, and what a converted model says of it.

An adapter does not name its recipe: those of OMGSR-F have the same base, layers and ranks, whether
they were trained at t_m 295 or 244. `choose` takes what is named, or what alone is possible, and
says so; otherwise it asks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omgsr_jax.descriptions import Json, build, several
from omgsr_jax.errors import InputError
from omgsr_jax.model_cards import COLOR, RESIZING, Origin, whole_origin

from .recipe_table import FLUX_DEV, RECIPES, SD21_BASE, SD_TURBO, Base, Recipe


@dataclass(frozen=True)
class Settings:
    """What a converted model says that no file of its base does."""

    name: str
    mid_timestep: int
    prompt: str
    process_size: int
    color: str
    origin: Origin
    process: str = ""
    resizing: str = RESIZING
    tile_size: int | None = None
    tile_overlap: int | None = None


@dataclass(frozen=True)
class Adapted:
    """What adapters say of themselves."""

    backbone: str  # the folder of the backbone that they belong to
    encoder_rank: int  # 0 if it has none
    backbone_rank: int
    family: str = "omgsr"  # that stores them so

    @property
    def ranks(self) -> str:
        return f"{self.encoder_rank} (encoder) and {self.backbone_rank} (backbone)"


def exported_settings(content: Json, where: str) -> Settings:
    """What `omgsr export` wrote, this version's or an earlier one's."""
    plain: Json = {"process": "", "resizing": RESIZING, "tile_size": None, "tile_overlap": None}
    return build(Settings, {**plain, **content, "origin": whole_origin(content)}, where)


def named(name: str) -> Recipe:
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    known = ", ".join(recipe.name for recipe in RECIPES)
    raise InputError(f"there is no recipe {name!r}; there are {known}")


def has_ranks(recipe: Recipe, adapted: Adapted) -> bool:
    fits = adapted.backbone_rank in recipe.backbone_ranks
    return fits and adapted.encoder_rank == recipe.encoder_rank


def require_fit(recipe: Recipe, adapted: Adapted) -> None:
    """The adapters may be those of the recipe."""
    if adapted.family != recipe.family:
        right = " or ".join(r.name for r in RECIPES if r.family == adapted.family)
        raise InputError(
            f"the adapters are stored as those of {right} are, not as those of {recipe.name}: say "
            f"--recipe {right}, or name the adapters that are at {recipe.adapters}"
        )
    if adapted.backbone != recipe.base.backbone:
        raise InputError(
            f"the adapters belong to a {adapted.backbone}, the base of {recipe.name} has a "
            f"{recipe.base.backbone}"
        )
    if not has_ranks(recipe, adapted):
        ranks = " or ".join(map(str, recipe.backbone_ranks))
        raise InputError(
            f"the adapters have the ranks {adapted.ranks}, those of {recipe.name} have "
            f"{recipe.encoder_rank} and {ranks}. {_of_ones_own(recipe)}"
        )


def _of_ones_own(recipe: Recipe) -> str:
    if recipe.family != "omgsr":
        return f"The published ones are at {recipe.adapters}."
    return (
        "For adapters of your own, leave out --recipe, and say --base and --mid-timestep, "
        "--prompt, --process-size."
    )


def require_whole(recipe: Recipe, adapted: Adapted | None, prompt: str | None) -> None:
    """All is there that a relative's recipe leaves to the user: none is of use as a base alone."""
    if recipe.family != "omgsr" and adapted is None:
        raise InputError(
            f"{recipe.name} is nothing without its adapters: fetch {recipe.adapters}, and name the "
            "file with --adapter"
        )
    if recipe.prompt is None and prompt is None:
        raise InputError(
            f"{recipe.name} has no prompt of its own: say --prompt, with words for what is to be "
            "seen (its own code asks a tagger for them), or an empty one"
        )


def of_adapters(adapted: Adapted) -> Recipe:
    """The recipe of adapters whose base is not named, where only one is possible."""
    of_kind = [
        r for r in RECIPES if r.base.backbone == adapted.backbone and r.family == adapted.family
    ]
    possible = [recipe for recipe in of_kind if has_ranks(recipe, adapted)]
    if len(possible) == 1:
        return possible[0]
    if len(of_kind) == 1:
        require_fit(of_kind[0], adapted)
    raise _ambiguous("these adapters", possible or of_kind)


def known_by(adapted: Adapted) -> str:
    """What tells which recipe adapters belong to."""
    return f"the ranks {adapted.ranks}" if adapted.family == "omgsr" else "adapters stored so"


def _ambiguous(what: str, among: Sequence[Recipe]) -> InputError:
    told = several(
        f"{r.name} (t_m {r.mid_timestep}, {r.process_size} px, on {r.base.title})" for r in among
    )
    return InputError(f"{what} may belong to {told}: say which with --recipe")


def base_of(scheduler: Json, backbone: Json, where: str) -> Base | None:
    """The base that has these configs, if it is that of a recipe."""
    if scheduler.get("prediction_type") == "v_prediction":
        raise InputError(
            f"{where} predicts v (prediction_type = 'v_prediction'), as stable-diffusion-2-1 for "
            "768 px does; OMGSR needs a base that predicts the noise: stable-diffusion-2-1-base, "
            f"which is at {' and '.join(SD21_BASE.sources)} on the hub"
        )
    marks = _marks(scheduler, backbone)
    return next((one for one in _BASES if one.marks == marks), None)


_BASES = (SD_TURBO, SD21_BASE, FLUX_DEV)


def _marks(scheduler: Json, backbone: Json) -> tuple[Any, Any, Any]:
    spacing = scheduler.get("timestep_spacing", "leading")
    network = backbone.get("use_linear_projection", backbone.get("_class_name"))
    return scheduler.get("_class_name"), spacing, network


def require_base(recipe: Recipe, found: Base | None, where: str) -> None:
    if found is recipe.base:
        return
    what = found.title if found else f"neither that nor the base of another recipe{_HINT}"
    raise InputError(
        f"{recipe.name} is on {recipe.base.title}, and {where} is {what}. Leave out --base to "
        f"fetch {recipe.base.sources[0]}."
    )


_HINT = " (Stable Diffusion 1.x is none)"


def choose(
    base: Base | None, adapted: Adapted | None, given: Mapping[str, Any]
) -> tuple[Recipe | None, str]:
    """The recipe of a base that is known, and why it was taken.

    Args:
        base: None if no recipe is on it.
        adapted: the adapters, if there are any.
        given: the user's own choices by name.
    """
    if all(value is not None for value in given.values()):
        return None, ""
    if base is None:
        absent = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is None]
        raise InputError(
            f"this base belongs to no published recipe{_HINT}; say {' and '.join(absent)} yourself"
        )
    family = adapted.family if adapted else "omgsr"
    on_base = [recipe for recipe in RECIPES if recipe.base is base and recipe.family == family]
    if adapted is None:
        return on_base[-1], f"the newest on {base.title}"
    possible = on_base
    for name, value in given.items():
        possible = [r for r in possible if getattr(r, name) == value] or possible
    if len(possible) > 1:
        raise _ambiguous("these adapters", possible)
    return possible[0], f"the only one on {base.title} that fits what is known"


def settings(recipe: Recipe | None, given: Mapping[str, Any], hub_id: str) -> Settings:
    """The user's choices, completed by the recipe. `hub_id` is where the base came from."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if recipe is None:
        return Settings(name="custom", color=COLOR, origin=Origin(base=hub_id), **chosen)
    base = recipe.base
    process_size = chosen.get("process_size", recipe.process_size)
    tiles = [int(share * process_size) for share in recipe.tiles or ()]
    size, overlap = tiles or (None, None)
    found = Settings(
        name=recipe.name,
        mid_timestep=recipe.mid_timestep,
        prompt=recipe.prompt or "",
        process_size=recipe.process_size,
        color=recipe.color,
        origin=Origin(
            recipe=recipe.name,
            base=hub_id or base.sources[0],
            license=base.license,
            license_name=base.license_name,
            license_link=base.license_link,
            adapter_license=recipe.license,
            adapter_license_link=recipe.license_link,
        ),
        process=recipe.process,
        resizing=recipe.resizing,
        tile_size=size,
        tile_overlap=overlap,
    )
    return replace(found, **chosen)


def listing() -> str:
    """All recipes, for people to read."""
    return "\n".join(_described(recipe) for recipe in RECIPES)


def _described(recipe: Recipe) -> str:
    base = recipe.base
    ranks = " or ".join(map(str, recipe.backbone_ranks))
    rows = {
        "base": f"{base.title}: {', then '.join(base.sources)}",
        "licence": " ".join(filter(None, (base.license_name or base.license, base.license_link))),
        "mid-timestep": recipe.mid_timestep,
        "process size": f"{recipe.process_size} px",
        "prompt": "yours" if recipe.prompt is None else repr(recipe.prompt),
        "ranks": f"{recipe.encoder_rank} (encoder), {ranks} (backbone)",
        "adapters": recipe.adapters or "never published",
        "code": f"{recipe.code} ({_code_license(recipe)})",
    }
    return f"{recipe.name}\n" + "".join(
        f"    {name + ':':<14}{row}\n" for name, row in rows.items()
    )


def _code_license(recipe: Recipe) -> str:
    if not recipe.license:
        return "no licence: do not pass converted adapters on"
    return f"{recipe.license}: {recipe.license_link}"


def licenses(settings: Settings) -> str:
    """Those of what a model is made of, for whoever converts it."""
    origin = settings.origin
    parts = {
        "the base": (origin.license_name or origin.license, origin.license_link),
        "the adapters": (origin.adapter_license, origin.adapter_license_link),
    }
    told = [f"of {what} {' '.join(filter(None, of))}" for what, of in parts.items() if of[0]]
    return f"licence {', '.join(told)}" if told else ""
