"""What a request asks for: the same words and the same sentences as the command line's."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..inference.formats import SAVING, suffix_of_format, suffixes
from ..inference.options import COLORS, Options, whole_number, width_height
from ..inference.sizes import DEFAULT_SCALE, LARGEST_SCALE, LONGEST_SIDE, Enlargement

NAMES = ("scale", "longest_side", "size", "color", "seed", "format")
_LARGEST_SEED = 10**18 - 1
_MOST_SHOWN = 40
_SIZE = "^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$"


@dataclass(frozen=True)
class Asked:
    options: Options
    suffix: str  # of the result's format

    @classmethod
    def of(cls, given: Mapping[str, str]) -> "Asked":
        """From names and texts, of a query or a form."""
        if unknown := sorted(set(given) - set(NAMES)):
            raise InputError(
                f"there is no parameter {unknown[0][:_MOST_SHOWN]!r}; there are {', '.join(NAMES)}"
            )
        scale, side, seed = (given.get(name) for name in ("scale", "longest_side", "seed"))
        enlargement = Enlargement.asked(
            scale=None if scale is None else _number("scale", scale),
            longest_side=None if side is None else _whole("longest_side", side, at_least=1),
            size=width_height(given["size"]) if "size" in given else None,
        )
        number = None if seed is None else _whole("seed", seed, at_least=0)
        return cls(
            Options(enlargement, given.get("color"), number),
            suffix_of_format(given.get("format", "png")[:_MOST_SHOWN]),
        )

    @property
    def media_type(self) -> str:
        return media_type(self.suffix)


def media_type(suffix: str) -> str:
    return f"image/{SAVING[suffix][0].lower()}"


def formats() -> list[str]:
    """What `format` may be."""
    return [suffix.removeprefix(".") for suffix in suffixes()]


def schema() -> dict[str, dict[str, Any]]:
    """The parameters, for OpenAPI."""
    usual = f"How many times as large ({DEFAULT_SCALE:g} where no size is given)."
    side = "Of the result, in pixels, in place of a scale."
    colors = "Which colours of the image the result gets; by default the model's."
    sampling = "Sample the VAE's posterior with it; by default its mode is taken."
    return {
        "scale": _described("number", usual, minimum=1, maximum=LARGEST_SCALE),
        "longest_side": _described("integer", side, minimum=1, maximum=LONGEST_SIDE),
        "size": _described("string", "Width and height of the result.", pattern=_SIZE),
        "color": _described("string", colors, enum=list(COLORS)),
        "seed": _described("integer", sampling, minimum=0, maximum=_LARGEST_SEED),
        "format": _described("string", "Of the result.", enum=formats(), default="png"),
    }


def _described(kind: str, description: str, **more: object) -> dict[str, Any]:
    return {"type": kind, "description": description, **more}


def _number(name: str, text: str) -> float:
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name} must be a number such as 4, not {text[:_MOST_SHOWN]!r}")
    return value


def _whole(name: str, text: str, *, at_least: int) -> int:
    try:
        return whole_number(text, at_least=at_least)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
