"""`omgsr export`: PyTorch weights out."""

from argparse import ArgumentParser, Namespace

from .. import assets
from .values import MODEL, location

SUMMARY = "a converted model to diffusers and peft folders"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--model", required=True, type=location, metavar="MODEL", help=MODEL)
    parser.add_argument(
        "--out", required=True, type=location, help="the folder to write; must not exist"
    )


def run(args: Namespace) -> None:
    from ..converters import export

    export(assets.model_directory(args.model), args.out)
    print(f"{args.out}: diffusers folders, adapters and the prompt's embeddings")
