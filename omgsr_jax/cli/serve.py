"""`omgsr serve`: a page and a service for one model."""

import importlib.util
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from .. import assets
from ..errors import InputError
from ..inference.options import require_batch
from . import loading
from .values import MODEL, location, positive

SUMMARY = "a page and a service that upscale images"

TOKEN = "OMGSR_TOKEN"
_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_LARGEST_PORT = 65535
_LOCAL = ("127.0.0.1", "::1", "localhost")


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model", type=location, default=assets.NANO, help=f"{MODEL} (default: nano)"
    )
    parser.add_argument(
        "--host", type=location, default="127.0.0.1", help="default: 127.0.0.1, this machine alone"
    )
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: one that is free")
    parser.add_argument(
        "--token-file",
        type=location,
        metavar="FILE",
        help=f"serve only those who send this token (or set {TOKEN})",
    )
    parser.add_argument(
        "--largest",
        type=positive,
        metavar="PX",
        help="longer side of images and results (default: 4 times the model's process size)",
    )
    parser.add_argument(
        "--waiting", type=positive, default=64, metavar="N", help="images at once (default: 64)"
    )
    parser.add_argument(
        "--upload-mb", type=positive, default=32, metavar="N", help="of one image (default: 32)"
    )
    parser.add_argument(
        "--timeout", type=positive, default=300, metavar="S", help="seconds a result may take (300)"
    )
    loading.add_options(parser)


def check(args: Namespace) -> None:
    require_batch(args.batch)
    if not 0 <= args.port <= _LARGEST_PORT:
        raise InputError(f"--port must be within 0 .. {_LARGEST_PORT}, not {args.port}")


def run(args: Namespace) -> None:
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise InputError(
            f"serving needs {', '.join(missing)}; install them with pip install 'omgsr-jax[serve]'"
        )
    token = _token(args.token_file)
    assets.model_directory(args.model)
    # Only now JAX, so that what is wrong with names has been said at once.
    from ..serving.limits import Limits
    from ..serving.server import say, serve

    if token is None and args.host not in _LOCAL:
        say(f"there is no token: whoever reaches {args.host} is served")
    limits = Limits(
        largest=args.largest,
        upload_bytes=args.upload_mb * 2**20,
        waiting=args.waiting,
        seconds=args.timeout,
    )
    serve(
        args.model,
        host=args.host,
        port=args.port,
        limits=limits,
        token=token,
        device=args.device,
        precision=args.precision,
        shards=args.shards,
        strips=args.strips,
        shifts=args.shifts,
        fidelity=args.fidelity,
        batch=args.batch,
    )


def _token(path: str | None) -> str | None:
    """Never an argument itself: those can be read by all users of a machine."""
    if path is None:
        return os.environ.get(TOKEN) or None
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"--token-file {path} cannot be read: {error}") from error
    if not token or any(letter.isspace() for letter in token):
        raise InputError(f"--token-file {path} must hold one word, the token")
    return token
