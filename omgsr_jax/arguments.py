"""What the command line's options accept, with messages for when they do not."""

from argparse import ArgumentTypeError


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
    return text if text in ("auto", "off") else positive(text)
