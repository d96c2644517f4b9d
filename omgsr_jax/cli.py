"""The `omgsr` command. Each subcommand parses, calls one function and prints."""

import argparse
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from . import __version__, arguments
from .errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from .timestep import Search

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
# May return the inputs that failed, each with the reason, or 1 if it has named them already.
Command = Callable[[argparse.Namespace], Sequence[str] | int | None]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns 0, or 1 if some inputs or all of it failed; argparse exits with
    2 on wrong usage."""
    args = _parser().parse_args(argv)
    try:
        outcome = args.command(args) or []
    except (InputError, OSError) as error:
        outcome = [str(error)]
    except KeyboardInterrupt:
        outcome = ["stopped"]
    if isinstance(outcome, int):
        return outcome
    for reason in outcome:
        print(f"omgsr {args.name}: {reason}", file=sys.stderr)
    return 1 if outcome else 0


def _upscale(args: argparse.Namespace) -> int:
    from .inference.command import run

    return run(args)


def _convert(args: argparse.Namespace) -> None:
    from conversion.convert import convert

    convert(
        args.base,
        args.out,
        adapter=args.adapter,
        prompt=args.prompt,
        mid_timestep=args.mid_timestep,
        process_size=args.process_size,
        precision=args.precision,
        allow_pickle=args.allow_pickle,
    )
    _print_info(args.out)


def _export(args: argparse.Namespace) -> None:
    from conversion.convert import export

    export(args.model, args.out)
    print(f"{args.out}: diffusers folders, adapters and the prompt's embeddings")


def _info(args: argparse.Namespace) -> None:
    _print_info(args.model)


def _print_info(directory: str) -> None:
    from .checkpoint import describe

    for name, value in describe(directory).items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(f"    {item}  {key}")
        else:
            print(f"{name + ':':<15} {value}")


def _timestep(args: argparse.Namespace) -> Sequence[str]:
    from . import checkpoint, timestep
    from .data import DamagedImageWarning

    card = checkpoint.read_card(args.model)
    if args.write:
        checkpoint.require_untrained(args.model)
    total, pairs = _degraded_pairs(args, args.resolution or card.process_size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DamagedImageWarning)
        found = timestep.search(
            timestep.encoder(checkpoint.read_vae(args.model)),
            card.generator.process,
            pairs,
            seed=args.seed,
            progress=lambda done: _show_progress("encoded", done, total),
        )
    _print_search(found)
    if args.out:
        timestep.write(found, args.out, chosen=args.criterion)
        print(f"{args.out}: timestep.json, timestep.svg")
    chosen = found.optima[args.criterion].timestep
    if args.write:
        checkpoint.set_mid_timestep(args.model, chosen)
        print(f"{args.model}: mid-timestep {card.generator.mid_timestep} -> {chosen}")
    return [str(warning.message) for warning in caught]


def _degraded_pairs(
    args: argparse.Namespace, size: int
) -> "tuple[int, Iterator[tuple[np.ndarray, np.ndarray]]]":
    """How many, and batches of one: low- and high-quality images."""
    from .data import PRESETS, PipelineConfig, make_pipeline, open_sources

    config = PipelineConfig(
        sources=tuple(args.data),
        resolution=size,
        batch_size=1,
        seed=args.seed,
        degradation=PRESETS[1024 if size >= 1024 else 512],
        workers=args.workers,
    )
    total = args.images or len(open_sources(args.data))
    batches = itertools.islice(make_pipeline(config, 0, 1), total)
    return total, ((batch["lr"], batch["hr"]) for batch in batches)


def _print_search(found: "Search") -> None:
    from .timestep import TITLES

    power, error = found.moments["power"], found.moments["error"]
    print(f"{found.images} images; mean square of z_H {power:.4g}, of z_L - z_H {error:.4g}")
    print(f"{'':8}{'t_m':>5}  standard error")
    for name, optimum in found.optima.items():
        print(f"{name:8}{optimum.timestep:>5}  {optimum.error:<14.1f}  {TITLES[name]}")


def _degrade(args: argparse.Namespace) -> Sequence[str]:
    from .data import PRESETS, degrade_folder

    summary = degrade_folder(
        args.source,
        args.out,
        seed=args.seed,
        config=PRESETS[args.preset],
        crop=args.crop,
        resize_back=args.resize_back,
        progress=lambda done, total: _show_progress("degraded", done, total),
    )
    print(f"{args.out}: {summary.written} pairs in lr/ and hr/, their plans in pairs.jsonl")
    return [reason if path in reason else f"{path}: {reason}" for path, reason in summary.failed]


def _eval(args: argparse.Namespace) -> Sequence[str]:
    from . import evaluation
    from .evaluation.writing import markdown, summarise

    inception = None
    if args.inception:
        from conversion.inception import read_inception

        inception = read_inception(args.inception, allow_pickle=args.allow_pickle)
    result = evaluation.run(
        args.sr,
        args.hr,
        args.lr,
        out=args.out,
        metrics=args.metrics,
        protocol=args.protocol,
        benchmark=args.benchmark,
        settings=evaluation.Settings(
            crop_border=args.crop_border,
            grid_period=args.grid_period,
            niqe_params=args.niqe_params,
            inception=inception,
        ),
        subset=args.subset,
        cross_check=args.cross_check,
        progress=_show_progress,
    )
    print(markdown(summarise(result)), end="")
    if args.out:
        print(f"\n{args.out}: images.csv, summary.json, summary.md, report.html")
    asked = args.metrics or ()
    return [f"{key} was not run: {why}" for key, why in result.not_run.items() if key in asked]


def _show_progress(what: str, done: int, total: int) -> None:
    """A line that counts on a terminal; elsewhere one line at the end."""
    if sys.stderr.isatty():
        print(f"\r{what}: {done} of {total}", end="", file=sys.stderr, flush=True)
    if done == total:
        start = "\n" if sys.stderr.isatty() else f"{what}: {total} of {total}\n"
        print(start, end="", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="omgsr", description="One-step real-world image super-resolution in JAX."
    )
    parser.add_argument("--version", action="version", version=f"omgsr-jax {__version__}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    upscale = _add(commands, "upscale", _upscale, "images to larger, restored ones")
    upscale.add_argument("inputs", nargs="+", metavar="IN", help="files, folders, globs")
    upscale.add_argument(
        "-o", "--out", required=True, help="a file for one input, else a folder that mirrors them"
    )
    upscale.add_argument("--model", required=True, metavar="DIR", help="a converted model")
    larger = upscale.add_mutually_exclusive_group()
    larger.add_argument("--scale", type=float, help="1 .. 8 (default: 4)")
    larger.add_argument("--longest-side", type=int, metavar="PX", help="of the output")
    larger.add_argument("--size", type=arguments.width_height, metavar="WxH", help="of the output")
    upscale.add_argument(
        "--color",
        choices=("adain", "wavelet", "lab", "none"),
        default="adain",
        help="which colours of the input the output gets (default: adain)",
    )
    upscale.add_argument(
        "--precision", choices=("fp32", "bf16"), help="default: fp32 on CPUs, else bf16"
    )
    upscale.add_argument(
        "--tile",
        type=arguments.tile,
        default="auto",
        metavar="auto|off|PX",
        help="when the VAE works in tiles (default: when memory is short)",
    )
    upscale.add_argument(
        "--batch", type=arguments.positive, default=1, help="images at once per device (default: 1)"
    )
    upscale.add_argument("--seed", type=int, help="sample the VAE's posterior (default: its mode)")
    upscale.add_argument(
        "--quirks", choices=("published",), help="round and truncate as the published script does"
    )
    upscale.add_argument("--format", metavar="EXT", help="of the outputs: png, jpg, webp, tiff ...")
    upscale.add_argument("--recursive", action="store_true", help="descend into folders")
    upscale.add_argument(
        "--skip-existing", action="store_true", help="leave outputs that exist alone"
    )
    upscale.add_argument(
        "--overwrite-input", action="store_true", help="let an output replace its input"
    )
    upscale.add_argument(
        "--compare", action="store_true", help="also write input and output side by side"
    )
    upscale.add_argument("--json", action="store_true", help="print a line of JSON per image")

    convert = _add(commands, "convert", _convert, "PyTorch weights to a converted model")
    convert.add_argument("--base", required=True, help="diffusers folder, or a hub id")
    convert.add_argument("--adapter", help="folder with the published adapter sub-folders")
    convert.add_argument("--out", required=True, help="the converted model; must not exist")
    convert.add_argument("--prompt", help="default: that of the base's published recipe")
    convert.add_argument("--mid-timestep", type=int, help="default: that of the recipe")
    convert.add_argument(
        "--process-size", type=int, metavar="PX", help="default: that of the recipe"
    )
    convert.add_argument(
        "--precision", choices=("fp32", "bf16"), help="of the stored base (default: as it is)"
    )
    convert.add_argument(
        "--allow-pickle", action="store_true", help="open .bin files (torch.load, weights only)"
    )

    export = _add(commands, "export", _export, "a converted model to diffusers and peft folders")
    export.add_argument("--model", required=True, help="a converted model")
    export.add_argument("--out", required=True, help="the folder to write; must not exist")

    info = _add(commands, "info", _info, "what a converted model is")
    info.add_argument("model", metavar="DIR", help="a converted model")

    _add_timestep(commands)
    _add_degrade(commands)
    _add_eval(commands)
    return parser


def _add_timestep(commands: Commands) -> None:
    timestep = _add(commands, "timestep", _timestep, "the optimal mid-timestep for a model's VAE")
    timestep.add_argument("--model", required=True, metavar="DIR", help="a converted model")
    timestep.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="DIR",
        help="high-quality photographs: folders, .txt lists or ArrayRecord shards",
    )
    timestep.add_argument(
        "--images", type=arguments.positive, metavar="N", help="default: all, once"
    )
    timestep.add_argument(
        "--resolution",
        type=arguments.positive,
        metavar="PX",
        help="of the crops (default: process size)",
    )
    timestep.add_argument(
        "--criterion",
        choices=("eq9", "august", "snr"),
        default="snr",
        help="whose optimum to write (default: snr)",
    )
    timestep.add_argument(
        "--write", action="store_true", help="write the optimum into the model, before training"
    )
    timestep.add_argument("--out", metavar="DIR", help="write timestep.json and timestep.svg there")
    timestep.add_argument(
        "--seed", type=arguments.not_negative, default=0, metavar="N", help="default: 0"
    )
    timestep.add_argument(
        "--workers",
        type=arguments.not_negative,
        default=0,
        metavar="N",
        help="processes that degrade",
    )


def _add_degrade(commands: Commands) -> None:
    degrade = _add(commands, "degrade", _degrade, "pairs of low and high quality from photographs")
    degrade.add_argument("source", metavar="IN", help="a folder, a .txt list or an image")
    degrade.add_argument("-o", "--out", required=True, metavar="OUT", help="the folder to write")
    degrade.add_argument(
        "--seed", type=arguments.not_negative, default=0, metavar="N", help="default: 0"
    )
    degrade.add_argument(
        "--preset",
        type=int,
        choices=(512, 1024),
        default=512,
        help="published parameters: x4 for 512 px (default), x8 for 1024 px",
    )
    degrade.add_argument(
        "--crop",
        type=arguments.positive,
        metavar="PX",
        help="cut the centre (default: the whole image)",
    )
    degrade.add_argument(
        "--resize-back", action="store_true", help="write lr as large as hr, as in training"
    )


def _add_eval(commands: Commands) -> None:
    score = _add(commands, "eval", _eval, "scores of outputs against references")
    score.add_argument(
        "--sr",
        required=True,
        action="append",
        metavar="DIR",
        help="outputs; give it again to compare another system",
    )
    score.add_argument("--hr", required=True, metavar="DIR", help="references of the same names")
    score.add_argument("--lr", metavar="DIR", help="inputs, to show in the report")
    score.add_argument("--out", metavar="DIR", help="write CSV, JSON, Markdown and HTML there")
    score.add_argument("--metrics", nargs="+", metavar="KEY", help="default: all that can run")
    score.add_argument("--protocol", choices=("papers",), help="hold the outputs to the papers'")
    score.add_argument(
        "--benchmark", metavar="NAME", help="show the papers' rows: RealSR, DRealSR, DIV2K-Val"
    )
    score.add_argument("--subset", action="store_true", help="allow references without an output")
    score.add_argument(
        "--cross-check", action="store_true", help="score by pyiqa too, report the difference"
    )
    score.add_argument(
        "--crop-border",
        type=arguments.not_negative,
        default=0,
        metavar="PX",
        help="leave out (default: 0)",
    )
    score.add_argument(
        "--grid-period",
        type=arguments.positive,
        default=16,
        metavar="PX",
        help="of `grid` (default: 16)",
    )
    score.add_argument("--niqe-params", metavar="FILE", help="NIQE's parameters, .npz or .mat")
    score.add_argument("--inception", metavar="FILE", help="FID's Inception weights")
    score.add_argument(
        "--allow-pickle", action="store_true", help="open a .pth (torch.load, weights only)"
    )


def _add(commands: Commands, name: str, command: Command, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
    parser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
