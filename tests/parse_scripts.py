"""Parses the command lines of scripts with the scripts' own parsers, and runs nothing.

Reads a JSON list of [script, argument ...] from standard input, and writes one of what is wrong.
"""

import argparse
import contextlib
import io
import json
import runpy
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags


class ParsedError(Exception):
    pass


def stop_after_parsing(parse: Callable[..., Any]) -> Callable[..., Any]:
    def parse_and_stop(*args: Any, **kwargs: Any) -> Any:
        parse(*args, **kwargs)
        raise ParsedError

    return parse_and_stop


def problem(script: str, argv: list[str]) -> str | None:
    """What the script's parser says against the arguments."""
    known, said = set(flags.FLAGS), io.StringIO()
    sys.argv = [script, *argv]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            runpy.run_path(script, run_name="__main__")
    except ParsedError:
        return None
    except SystemExit:
        return said.getvalue().strip().splitlines()[-1]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        for name in set(flags.FLAGS) - known:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
    return "the script parsed no arguments"


def main() -> None:
    asked = json.load(sys.stdin)
    argparse.ArgumentParser.parse_args = stop_after_parsing(  # type: ignore[method-assign]
        argparse.ArgumentParser.parse_args
    )
    app.run = stop_after_parsing(lambda *_, **__: flags.FLAGS(sys.argv))
    json.dump([problem(script, argv) for script, *argv in asked], sys.stdout)


if __name__ == "__main__":
    main()
