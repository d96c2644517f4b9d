"""What options accept."""

from argparse import ArgumentTypeError

from ..errors import InputError
from ..inference.options import require_tile

MODEL = "the directory of a converted model, or nano, which comes with omgsr-jax"


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def not_negative(text: str) -> int:
    if not text.isdigit():
        raise ArgumentTypeError(f"expected a whole number of at least 0, not {text!r}")
    return int(text)


def width_height(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ArgumentTypeError(f"expected WIDTHxHEIGHT such as 1920x1080, not {text!r}")
    return int(width), int(height)


def tile(text: str) -> str | int:
    """Whether it fits a model is known when that is loaded."""
    value = int(text) if text.isdigit() else text
    try:
        require_tile(value)
    except InputError as error:
        raise ArgumentTypeError(str(error)) from None
    return value
