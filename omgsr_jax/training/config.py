"""What a training run is: frozen dataclasses, and how they are read from nested settings."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import buckets
from ..data import DataConfig
from ..errors import InputError
from ..losses.detail import WINDOW as DETAIL_WINDOW
from ..losses.total import LossWeights
from ..models.stack import EACH
from ..perceptual import BACKBONES
from ..quirks import COMMITS, require_quirks
from ..weights import PRECISIONS, SPREADING, SUMMING, Rule

# Linear and convolution kernels both end in (in, out), so one rule fits them. In a transformer's
# stacked blocks every kernel is divided, and around them the large ones: what sums over heads or
# features by what it takes, all else by what it puts out. An adapter's factor is divided on the
# side on which its kernel is.
_AROUND = r"(context_embedder|cap_embedder\.1|time_text_embed\.\w+\.linear_\d|norm_out\.linear)"
_WIDE = rf"(\.{SPREADING}(\.lora_B)?|\.{EACH}\.(?!.*\.lora_).*|\.{_AROUND})"
DEFAULT_RULES: tuple[Rule, ...] = (
    (rf"\.{SUMMING}(\.lora_A)?\.kernel$", ("tensor", "fsdp")),
    (rf"{_WIDE}\.kernel$", ("fsdp", "tensor")),
    (r"kernel$", ("fsdp", None)),
    (r"", ()),
)


LATENTS = "latents"


@dataclass(frozen=True)
class ModelConfig:
    """The base that is fine-tuned: a converted model, or random weights of an architecture."""

    path: str = ""
    architecture: str = ""
    encoder_rank: int = 16
    backbone_rank: int = 32
    # Weights whose names begin so are trained themselves. A rank of 0 is no adapter.
    whole: tuple[str, ...] = ()
    mid_timestep: int | None = None  # None: the base's own
    # Each image has a mid-timestep of its own, which begins at the one above. In training it is
    # sampled from as many timesteps around it, on either side.
    adaptive: bool = False
    timestep_spread: int = 20
    # Latents go through the backbone moved by a random part of its patch, and are moved back.
    shifts: bool = False
    # Side of the images to restore in one piece; None: that of the training crops.
    process_size: int | None = None
    precision: str = "bf16"  # of the frozen weights, and so of the arithmetic
    remat: bool = False
    perceptual: str = ""  # a directory of converted perceptual networks


@dataclass(frozen=True)
class DiscriminatorConfig:
    # Or another one of perceptual.BACKBONES; or "latents": it judges latents, not images, through
    # the backbone that is fine-tuned, as it was before.
    backbone: str = "dinov2"
    heads: str = "token"  # or tower, unet
    levels: tuple[int, ...] = (-8, -4, -1)
    width: int = 128  # of token and unet heads
    layout: int = 512  # of tower heads: the resolution that they are laid out for
    image_size: int | None = 518
    chunk: int | None = None  # OC-GAN's window; None judges whole images
    relativistic: bool = False  # what is restored is judged beside its original

    @property
    def sees_latents(self) -> bool:
        return self.backbone == LATENTS


@dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: float = 2e-5
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 1e-4
    clip: float = 1.0
    warmup: int = 500
    ema: float = 0.0  # decay of the averaged adapters; 0 keeps none


@dataclass(frozen=True)
class MeshConfig:
    """How many devices each axis has; -1 stands for all that the others leave."""

    data: int = -1
    fsdp: int = 1
    spatial: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class ValidationConfig:
    sources: tuple[str, ...] = ()
    images: int = 16
    every: int = 500
    shown: int = 4  # of them in the picture

    def __post_init__(self) -> None:
        _positive(self, "validation", "images", "every", "shown")


@dataclass(frozen=True)
class RunConfig:
    steps: int = 1000
    cooldown: int = 0  # steps before the last over which the learning rate falls to 0
    log_every: int = 10
    save_every: int = 500
    keep: int = 3
    # Steps to trace with the profiler, when `profile_at` are done since the start; 0 traces none.
    profile_at: int = 10
    profile_steps: int = 0
    # Steps of the whole run that are passed over where something is not finite; then the run stops.
    skip_not_finite: int = 0
    # "last_whole" goes on from an earlier checkpoint where the latest is damaged.
    resume: str = "latest"
    # Every so many steps each process keeps its shards in this folder on its own host; 0: never.
    emergency_every: int = 0
    emergency_folder: str = ""
    # Where compiled programs are kept: "auto" is the user's cache directory, "" is nowhere.
    compilation_cache: str = "auto"

    def __post_init__(self) -> None:
        _positive(self, "run", "steps", "log_every", "save_every", "keep")
        for name in ("profile_at", "profile_steps", "skip_not_finite", "emergency_every"):
            if (value := getattr(self, name)) < 0:
                raise InputError(f"run.{name} is {value}, expected 0 or more")
        folder = self.emergency_folder
        if self.emergency_every and (not folder or buckets.is_remote(folder)):
            raise InputError(
                f"run.emergency_folder is {folder!r}, expected a folder on a disk of each host, "
                "such as /tmp/omgsr"
            )
        _one_of("run.resume", self.resume, ("latest", "last_whole"))
        if not 0 <= self.cooldown <= self.steps:
            raise InputError(
                f"run.cooldown is {self.cooldown}, expected 0 to run.steps, {self.steps}"
            )


@dataclass(frozen=True)
class TrainConfig:
    name: str = "unnamed"
    seed: int = 0
    # "v1" or "v2": what is built differs (blueprint.py), and nothing else asks for it.
    quirks: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    sharding: tuple[Rule, ...] = DEFAULT_RULES
    data: DataConfig = field(default_factory=DataConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        require_quirks(self.quirks, tuple(COMMITS))
        _one_of("model.precision", self.model.precision, tuple(PRECISIONS))
        _one_of("discriminator.heads", self.discriminator.heads, ("token", "tower", "unet"))
        _one_of("discriminator.backbone", self.discriminator.backbone, (*BACKBONES, LATENTS))
        if self.model.timestep_spread < 0:
            raise InputError(
                f"model.timestep_spread is {self.model.timestep_spread}, expected 0 or more"
            )
        _positive(self.data, "data", "batch_size", "accumulation")
        if self.losses.detail and self.data.resolution < DETAIL_WINDOW:
            raise InputError(
                f"losses.detail compares windows of {DETAIL_WINDOW} px, but data.resolution is "
                f"{self.data.resolution}"
            )
        if self.losses.gan:
            _check_discriminator(self.discriminator, self.data.resolution)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def from_dict(content: Mapping[str, Any]) -> TrainConfig:
    """The config that `content` (a ConfigDict's to_dict()) describes; wrong keys are errors."""
    return read(TrainConfig, content)


def read(kind: type, content: Mapping[str, Any], where: str = "config") -> Any:
    """A dataclass `kind` from nested mappings. Every unknown or mistyped key is named."""
    if not isinstance(content, Mapping):
        raise InputError(f"{where} is {content!r}, expected a group of settings")
    hints = typing.get_type_hints(kind)
    unknown = [name for name in content if name not in hints]
    if unknown:
        near = {name: difflib.get_close_matches(name, hints, 1) for name in unknown}
        hint = "".join(f"; did you mean {where}.{n[0]}?" for n in near.values() if n)
        raise InputError(
            f"{', '.join(f'{where}.{name}' for name in unknown)} is not a setting{hint} "
            f"{where} has {', '.join(hints)}"
        )
    return kind(
        **{name: _checked(hints[name], value, f"{where}.{name}") for name, value in content.items()}
    )


def _checked(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return read(hint, value, where)
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            return _tuple(typing.get_args(option), value, where)
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(option, type) and isinstance(value, option):
            if option is int and isinstance(value, bool):
                continue
            return value
    expected = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise InputError(f"{where} is {value!r}, expected {expected}")


def _tuple(hints: tuple[Any, ...], values: Any, where: str) -> tuple[Any, ...]:
    if hints[-1] is Ellipsis:
        hints = (hints[0],) * len(values)
    if len(hints) != len(values):
        raise InputError(f"{where} is {values!r}, expected {len(hints)} values")
    return tuple(
        _checked(hint, value, f"{where}[{i}]")
        for i, (hint, value) in enumerate(zip(hints, values, strict=True))
    )


def _positive(part: Any, where: str, *names: str) -> None:
    wrong = {f"{where}.{name}": value for name in names if (value := getattr(part, name)) < 1}
    if wrong:
        raise InputError(f"these must be 1 or more: {wrong}")


def _check_discriminator(config: DiscriminatorConfig, resolution: int) -> None:
    if config.relativistic and config.chunk:
        raise InputError(
            f"discriminator.chunk is {config.chunk}, but a relativistic discriminator judges whole "
            "images: set it to None"
        )
    if config.sees_latents and not config.relativistic:
        raise InputError(
            "a discriminator of latents is relativistic, since the other kind recolours what it "
            "sees: set discriminator.relativistic to True"
        )
    if config.sees_latents and config.image_size is not None:
        raise InputError(
            f"discriminator.image_size is {config.image_size}, but latents are seen in their own "
            "size: set it to None"
        )
    if config.heads == "unet" and (len(config.levels) != 1 or resolution % 8):
        raise InputError(
            "discriminator.heads 'unet' takes one level and crops whose side is a multiple of 8; "
            f"discriminator.levels is {config.levels}, data.resolution is {resolution}"
        )


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} is {value!r}, expected one of {', '.join(map(repr, allowed))}")
