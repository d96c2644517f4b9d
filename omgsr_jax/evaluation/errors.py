"""What can go wrong that is for the user to mend."""


class PairError(ValueError):
    """The folders cannot be compared; the message lists why."""


class UnavailableError(RuntimeError):
    """A metric cannot run here, for want of weights or a package: it is reported as not run."""
