"""What options accept."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import TypeVar

from ..errors import InputError
from ..inference.options import Share, require_device, require_strips, require_suffix

_Any = TypeVar("_Any")

MODEL = (
    "a converted model: its directory, local or in a bucket, its name on the hub "
    "(user/name[@revision]), or nano, which comes with omgsr-jax"
)

_MOST_DIGITS = 18
_MOST_SHOWN = 40


def location(text: str) -> str:
    """Of a file or a folder. Python would take an empty one for the current folder."""
    if not text:
        raise ArgumentTypeError("expected a name, not an empty text")
    return text


def positive(text: str) -> int:
    return _whole(text, at_least=1)


def not_negative(text: str) -> int:
    return _whole(text, at_least=0)


def width_height(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (_is_whole(width) and _is_whole(height)):
        raise ArgumentTypeError(f"expected WIDTHxHEIGHT such as 1920x1080, not {_shown(text)}")
    return int(width), int(height)


def strips(text: str) -> str | int:
    return _checked(require_strips, int(text) if _is_whole(text) else text[:_MOST_SHOWN])


def device(text: str) -> str:
    return _checked(require_device, text)


def suffix(text: str) -> str:
    return _checked(require_suffix, text)


def shard(text: str) -> Share:
    index, slash, count = text.partition("/")
    if not (slash and _is_whole(index) and _is_whole(count)):
        raise ArgumentTypeError(
            f"expected I/N with I from 0 to N - 1, such as 0/3, not {_shown(text)}"
        )
    try:
        return Share(int(index), int(count))
    except InputError as error:
        raise ArgumentTypeError(str(error)) from None


def _checked(check: Callable[[_Any], None], value: _Any) -> _Any:
    """`value`, where `check` finds nothing wrong with it."""
    try:
        check(value)
    except InputError as error:
        raise ArgumentTypeError(str(error)) from None
    return value


def _whole(text: str, *, at_least: int) -> int:
    if not _is_whole(text) or int(text) < at_least:
        raise ArgumentTypeError(
            f"expected a whole number of at least {at_least}, not {_shown(text)}"
        )
    return int(text)


def _is_whole(text: str) -> bool:
    """`isdigit` alone would take ², and `int` alone 1_0; no size or seed needs more digits."""
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")
