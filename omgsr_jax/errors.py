"""The one exception that is meant for the user."""


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message says what is wrong with which file, key or flag, what was expected and what to do;
    the command line prints it without a traceback.
    """
