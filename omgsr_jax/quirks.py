"""Whose incorrect behaviour is asked for, where the published code does what is not correct.

Quirks are chosen when something is built: a model is loaded, a run's blueprint is made. What they
change is a property of what is built, and no function takes them.
"""

from typing import Literal

from .errors import InputError

Quirks = Literal["published"] | None
QUIRKS = ("published",)


def require_quirks(quirks: str | None) -> None:
    if quirks is not None and quirks not in QUIRKS:
        raise InputError(f'quirks must be "published" or None, not {quirks!r}')
