"""Whose incorrect behaviour is asked for, where the published code does what is not correct.

Quirks are named after the code whose behaviour they reproduce, and chosen when something is built:
a model is loaded, a run's blueprint is made. What they change is a property of what is built, and
no function takes them.
"""

from typing import Literal

from .errors import InputError

Quirks = Literal["v1", "v2"] | None
# Commits of github.com/wuer5/OMGSR.
COMMITS = {"v1": "86297b2", "v2": "8996613"}
QUIRKS = tuple(COMMITS)


def require_quirks(quirks: str | None) -> None:
    if quirks is not None and quirks not in QUIRKS:
        named = " or ".join(f'"{name}" (commit {commit})' for name, commit in COMMITS.items())
        raise InputError(f"quirks must be {named} of the published code, or None, not {quirks!r}")
