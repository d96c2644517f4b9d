"""Whose incorrect behaviour is asked for, where the published code does what is not correct.

Quirks are named after the code whose behaviour they reproduce, and chosen when something is built:
a model is loaded, a run's blueprint is made. What they change is a property of what is built, and
no function takes them.
"""

from collections.abc import Sequence
from typing import Literal

from .errors import InputError

Quirks = Literal["v1", "v2", "hypir-sd2", "osediff", "pisa-sr"] | None
# Commits of github.com/wuer5/OMGSR.
COMMITS = {"v1": "86297b2", "v2": "8996613"}
# Recipes of relatives, each with one published script.
RELATIVES = ("hypir-sd2", "osediff", "pisa-sr")
QUIRKS = (*COMMITS, *RELATIVES)


def require_quirks(quirks: str | None, known: Sequence[str] = QUIRKS) -> None:
    if quirks is not None and quirks not in known:
        named = " or ".join(f'"{name}" (commit {commit})' for name, commit in COMMITS.items())
        of_relatives = [name for name in RELATIVES if name in known]
        more = f" (of relatives: {', '.join(of_relatives)})" if of_relatives else ""
        raise InputError(
            f"quirks must be {named} of the published code{more}, or None, not {quirks!r}"
        )
