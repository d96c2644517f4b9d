"""How to upscale, and what can be asked for. Imports no JAX: the command line checks with it."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import InputError
from .sizes import Enlargement

COLORS = ("adain", "wavelet", "lab", "none")  # see colour.py
RESIZINGS = ("omgsr", "hypir")  # see restore.py
INFERENCE_PRECISIONS = ("fp32", "bf16", "int8")
PLATFORMS = ("cpu", "cuda", "tpu")
_DEVICES = ("cpu", "gpu", "cuda", "rocm", "tpu")
_DEVICE = re.compile(rf"({'|'.join(_DEVICES)})(:[0-9]{{1,6}})?")
LEAST_STRIP = 8  # rows
_LARGEST_BATCH = 1024
_STRONGEST = 10
WHOLE = (1.0, 1.0)  # strengths of adapters as they were trained
_MOST_DIGITS = 18
_MOST_SHOWN = 40

_Any = TypeVar("_Any")


@dataclass(frozen=True)
class Options:
    """How to upscale.

    Args:
        enlargement: how much larger.
        color: which colours of the source the result gets, see `colour`; by default the model's.
        seed: sample the VAE's posterior with it, instead of taking its mode.
        strengths: see `strengths`; by default those that the model was loaded with.
    """

    enlargement: Enlargement
    color: str | None = None
    seed: int | None = None
    strengths: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.strengths is not None:
            require_strengths(self.strengths)
        if self.color is not None:
            require_color(self.color)
        if self.seed is not None and self.seed < 0:
            raise InputError(f"seed must be 0 or more, not {self.seed}")


def for_each(options: Options | Sequence[Options], count: int) -> Sequence[Options]:
    """Those of each image, where one may stand for all."""
    return [options] * count if isinstance(options, Options) else options


@dataclass(frozen=True)
class Share:
    """Every `count`-th of a list, from its `index`-th on: what one of several runs does."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise InputError(
                f"expected I/N with I from 0 to N - 1, such as 0/3, not {self.index}/{self.count}"
            )

    def of(self, jobs: Sequence[_Any]) -> Sequence[_Any]:
        return jobs[self.index :: self.count]


ALL = Share(0, 1)


def whole_number(text: str, *, at_least: int) -> int:
    """From a text that users give."""
    if not is_whole(text) or int(text) < at_least:
        raise InputError(f"expected a whole number of at least {at_least}, not {shown(text)}")
    return int(text)


def width_height(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (is_whole(width) and is_whole(height)):
        raise InputError(f"expected WIDTHxHEIGHT such as 1920x1080, not {shown(text)}")
    return int(width), int(height)


def is_whole(text: str) -> bool:
    """`isdigit` alone would take ², and `int` alone 1_0; no size or seed needs more digits."""
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def shown(text: str) -> str:
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")


def require_color(color: str) -> None:
    if color not in COLORS:
        raise InputError(f"color must be one of {', '.join(COLORS)}, not {color!r}")


def require_resizing(resizing: str) -> None:
    if resizing not in RESIZINGS:
        raise InputError(f"resizing must be one of {', '.join(RESIZINGS)}, not {resizing!r}")


def require_strengths(strengths: Sequence[float]) -> None:
    within = [strength for strength in strengths if 0 <= strength <= _STRONGEST]
    if len(strengths) != 2 or len(within) < 2:
        raise InputError(
            f"strengths must be two numbers within 0 .. {_STRONGEST}, of the pixel and of the "
            f"semantic adapter, not {shown(repr(strengths))}"
        )


def two_strengths(text: str) -> tuple[float, float]:
    try:
        pixel, semantic = map(float, text.split(","))
    except ValueError:
        raise InputError(f"expected PIX,SEM such as 1,0.5, not {shown(text)}") from None
    require_strengths((pixel, semantic))
    return pixel, semantic


def require_precision(precision: str) -> None:
    if precision not in INFERENCE_PRECISIONS:
        raise InputError(
            f"precision must be one of {', '.join(INFERENCE_PRECISIONS)}, not {precision!r}"
        )


def require_whole_scale(enlargement: Enlargement) -> float:
    """What the published scripts can be asked for."""
    scale = enlargement.scale
    if scale is None:
        raise InputError("with quirks there is a scale only, no longest_side or size")
    if scale != int(scale):
        raise InputError(f"with quirks there are whole-number scales only, not {scale:g}")
    return scale


def require_platforms(platforms: Sequence[str]) -> None:
    for platform in platforms:
        if platform not in PLATFORMS:
            raise InputError(f"platforms must be of {', '.join(PLATFORMS)}, not {platform!r}")


def require_device(name: str) -> None:
    if not _DEVICE.fullmatch(name):
        raise InputError(
            f"device must be one of {', '.join(_DEVICES)}, with or without a number such as gpu:0, "
            f"not {name!r}"
        )


def require_suffix(suffix: str) -> None:
    if not suffix or suffix != os.path.basename(suffix) or "\\" in suffix or "\0" in suffix:
        raise InputError(f"suffix must be text for the end of a file's name, not {suffix!r}")


def require_batch(batch: int) -> None:
    if not 1 <= batch <= _LARGEST_BATCH:
        raise InputError(f"batch must be within 1 .. {_LARGEST_BATCH}, not {batch}")


def require_shifts(shifts: int, patch: int) -> None:
    """Of a backbone that takes so many latents together, per side."""
    if patch == 1 and shifts != 1:
        raise InputError(
            f"shifts are for backbones that take latents in patches, and this model's takes them "
            f"one by one: it has no lattice, so leave shifts at 1 instead of {shifts}"
        )
    if not 1 <= shifts <= patch**2:
        raise InputError(
            f"shifts must be within 1 .. {patch**2}, the places in a patch of {patch} x {patch} "
            f"latents, not {shifts}"
        )


def require_fidelity(fidelity: float) -> None:
    if not -1 <= fidelity <= 1:
        raise InputError(f"fidelity must be within -1 .. 1, not {fidelity:g}")


def fidelity(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        raise InputError(f"expected a number within -1 .. 1, not {shown(text)}") from None
    require_fidelity(found)
    return found


def require_strips(strips: str | int) -> None:
    if isinstance(strips, str):
        if strips not in ("auto", "off"):
            raise InputError(f"strips must be auto, off or a number of rows, not {strips!r}")
    elif strips < LEAST_STRIP:
        raise InputError(f"strips must be of at least {LEAST_STRIP} rows, not {strips}")
