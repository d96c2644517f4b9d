# PYTHON_ARGCOMPLETE_OK
"""The `omgsr` command. A file per subcommand: its summary, options, checks, and `run`.

Importing this loads no JAX, so that help and usage errors come at once: a subcommand imports what
it works with in its `run`. `values` and `progress` are what several of them share, `reporting` is
of upscale.
"""

import contextlib
import io
import os
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from types import ModuleType

from .. import __version__
from ..errors import InputError
from . import compare, convert, degrade, demo, eval, export, info, serve, timestep, upscale

# In the order of --help. Each has SUMMARY, add_options(parser) and run(args), which may return the
# inputs that failed, each with the reason, or 1 if it has named them already. `check(args)`, where
# there is one, raises InputError for what argparse cannot say.
_SUBCOMMANDS: Mapping[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (demo, upscale, compare, serve, convert, export, info, timestep, degrade, eval)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns 0, or 1 if some inputs or all of it failed; argparse exits with
    2 on wrong usage."""
    args = _parse(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    _say_warnings_plainly(args.name)
    try:
        outcome = args.run(args) or []
    except (InputError, OSError) as error:
        outcome = [str(error)]
    except KeyboardInterrupt:
        outcome = ["stopped"]
    if isinstance(outcome, int):
        return outcome
    for reason in outcome:
        print(f"omgsr {args.name}: {reason}", file=sys.stderr)
    return 1 if outcome else 0


def _say_warnings_plainly(name: str) -> None:
    """As sentences. Those of Pillow name no file, and may be thousands for one."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.showwarning = lambda message, *_, **__: print(
        f"omgsr {name}: {message}", file=sys.stderr
    )


def _parse(argv: Sequence[str] | None) -> Namespace:
    """The arguments, with the subcommand's `run`; exits with 2 on wrong usage."""
    parser = ArgumentParser(
        prog="omgsr", description="One-step real-world image super-resolution in JAX."
    )
    parser.add_argument("--version", action="version", version=f"omgsr-jax {__version__}")
    subparsers = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for name, module in _SUBCOMMANDS.items():
        summary = module.SUMMARY
        subparser = subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:]
        )
        module.add_options(subparser)
        subparser.set_defaults(run=module.run, misused=subparser.error)
    _complete(parser)
    args = parser.parse_args(argv)
    try:
        getattr(_SUBCOMMANDS[args.name], "check", lambda _: None)(args)
    except InputError as problem:
        args.misused(str(problem))
    return args


def _complete(parser: ArgumentParser) -> None:
    """Where a shell asks how a command goes on, argcomplete answers it and ends the process."""
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(parser)
