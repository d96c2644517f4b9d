"""`omgsr timestep`: the search for a model's mid-timestep."""

import itertools
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .. import assets
from ..errors import InputError
from .progress import add_quiet, display
from .values import MODEL, location, not_negative, positive

if TYPE_CHECKING:
    import numpy as np

    from ..timestep.optimum import Search

SUMMARY = "the optimal mid-timestep for a model's VAE"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--model", required=True, type=location, metavar="MODEL", help=MODEL)
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        type=location,
        metavar="DIR",
        help="high-quality photographs: folders, .txt lists or ArrayRecord shards",
    )
    parser.add_argument("--images", type=positive, metavar="N", help="default: all, once")
    parser.add_argument(
        "--resolution",
        type=positive,
        metavar="PX",
        help="of the crops (default: process size)",
    )
    parser.add_argument(
        "--criterion",
        choices=("eq9", "august", "snr"),
        default="snr",
        help="whose optimum to write (default: snr)",
    )
    parser.add_argument(
        "--write", action="store_true", help="write the optimum into the model, before training"
    )
    parser.add_argument(
        "--out", type=location, metavar="DIR", help="write timestep.json and timestep.svg there"
    )
    parser.add_argument("--seed", type=not_negative, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--workers",
        type=not_negative,
        default=0,
        metavar="N",
        help="processes that degrade",
    )
    add_quiet(parser)


def check(args: Namespace) -> None:
    if args.write and args.model == assets.NANO:
        raise InputError("--write: nano was trained at its mid-timestep and keeps it")
    if args.write and assets.is_on_hub(args.model):
        raise InputError(f"--write: {args.model} is on the hub; write into a directory of your own")


def run(args: Namespace) -> Sequence[str]:
    with display(f"loading the VAE of {args.model}", quiet=args.quiet) as shown:
        from .. import converted, files, timestep
        from ..data import DamagedImageWarning

        if args.out:
            files.require_folder_name(args.out)
        model = assets.model_directory(args.model)
        card = converted.read_card(model)
        if args.write:
            converted.require_untrained(model)
        total, pairs = _degraded_pairs(args, args.resolution or card.process_size)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DamagedImageWarning)
            found = timestep.search(
                timestep.encoder(converted.read_vae(model)),
                card.generator.process,
                pairs,
                seed=args.seed,
                progress=lambda done: shown.count("encoded", done, total),
            )
    _print_search(found)
    if args.out:
        timestep.write(found, args.out, chosen=args.criterion)
        print(f"{args.out}: timestep.json, timestep.svg")
    chosen = found.optima[args.criterion].timestep
    if args.write:
        converted.set_mid_timestep(model, chosen)
        print(f"{args.model}: mid-timestep {card.generator.mid_timestep} -> {chosen}")
    damaged = [one for one in caught if issubclass(one.category, DamagedImageWarning)]
    for other in caught:
        if other not in damaged:
            warnings.warn(other.message, other.category, stacklevel=1)
    return [str(one.message) for one in damaged]


def _degraded_pairs(
    args: Namespace, size: int
) -> "tuple[int, Iterator[tuple[np.ndarray, np.ndarray]]]":
    """How many, and batches of one: low- and high-quality images."""
    from ..data import DataConfig, make_pipeline, open_sources, signed

    config = DataConfig(
        sources=tuple(args.data),
        resolution=size,
        batch_size=1,
        degradation=1024 if size >= 1024 else 512,
        workers=args.workers,
    )
    total = args.images or len(open_sources(args.data))
    pipeline = make_pipeline(config, args.seed, process_index=0, process_count=1)
    batches = itertools.islice(pipeline, total)
    return total, ((signed(batch["lr"]), signed(batch["hr"])) for batch in batches)


def _print_search(found: "Search") -> None:
    from ..timestep.optimum import TITLES

    power, error = found.moments["power"], found.moments["error"]
    print(f"{found.images} images; mean square of z_H {power:.4g}, of z_L - z_H {error:.4g}")
    print(f"{'':8}{'t_m':>5}  standard error")
    for name, optimum in found.optima.items():
        print(f"{name:8}{optimum.timestep:>5}  {optimum.error:<14.1f}  {TITLES[name]}")
