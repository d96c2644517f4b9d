"""What can go wrong that is for the user to mend."""

from ..errors import InputError


class PairError(InputError):
    """The folders cannot be compared; the message lists why."""


class UnavailableError(InputError):
    """A metric cannot run here, for want of weights or a package: it is reported as not run."""
