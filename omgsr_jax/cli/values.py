"""What options accept."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import InputError
from ..inference import options

MODEL = (
    "a converted model: its directory, local or in a bucket, its name on the hub "
    "(user/name[@revision]), or nano, which comes with omgsr-jax"
)

_MOST_SHOWN = 40

_Any = TypeVar("_Any")


def location(text: str) -> str:
    """Of a file or a folder. Python would take an empty one for the current folder."""
    if not text:
        raise ArgumentTypeError("expected a name, not an empty text")
    return text


def positive(text: str) -> int:
    return _explained(options.whole_number, text, at_least=1)


def not_negative(text: str) -> int:
    return _explained(options.whole_number, text, at_least=0)


def width_height(text: str) -> tuple[int, int]:
    return _explained(options.width_height, text)


def strips(text: str) -> str | int:
    value = int(text) if options.is_whole(text) else text[:_MOST_SHOWN]
    _explained(options.require_strips, value)
    return value


def two_strengths(text: str) -> tuple[float, float]:
    return _explained(options.two_strengths, text)


def fidelity(text: str) -> float:
    return _explained(options.fidelity, text)


def device(text: str) -> str:
    _explained(options.require_device, text)
    return text


def suffix(text: str) -> str:
    _explained(options.require_suffix, text)
    return text


def shard(text: str) -> options.Share:
    index, slash, count = text.partition("/")
    if not (slash and options.is_whole(index) and options.is_whole(count)):
        raise ArgumentTypeError(
            f"expected I/N with I from 0 to N - 1, such as 0/3, not {options.shown(text)}"
        )
    return _explained(options.Share, int(index), int(count))


def _explained(function: Callable[..., _Any], *given: Any, **named: Any) -> _Any:
    try:
        return function(*given, **named)
    except InputError as error:
        raise ArgumentTypeError(str(error)) from None
