"""The `omgsr` command. Each subcommand parses, calls one function and prints."""

import argparse
import contextlib
import itertools
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments, assets
from .errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from .demo import Demonstration
    from .timestep.optimum import Search


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns 0, or 1 if some inputs or all of it failed; argparse exits with
    2 on wrong usage."""
    args = arguments.parse(argv, _COMMANDS)
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


def _demo(args: argparse.Namespace) -> None:
    from . import demo
    from .inference.command import show_compiling

    print(f"restoring the sample {args.sample} with nano, in one step", flush=True)
    _print_demo(demo.run(args.out, args.sample, notify=show_compiling))


def _print_demo(shown: "Demonstration") -> None:
    from .evaluation.metrics import BY_KEY

    compiling = f", {shown.compiling:.1f} s of it compiling" if shown.compiling else ""
    print(f"took {shown.seconds:.1f} s{compiling}\n")
    print(f"{'':8}{'bicubic':>9}{'nano':>9}")
    for key, values in shown.scores.items():
        metric = BY_KEY[key]
        row = "".join(f"{value:>9.{metric.decimals}f}" for value in values)
        print(f"{metric.label:8}{row}  {metric.better} is better")
    print()
    width = max(len(str(path)) for path in shown.files.values())
    for what, path in shown.files.items():
        print(f"{path!s:{width}}  {what}")
    print("\nNow a photograph of yours:\n  omgsr upscale your.jpg -o out.png")


def _upscale(args: argparse.Namespace) -> int:
    from .inference.command import run

    return run(args)


def _convert(args: argparse.Namespace) -> None:
    from .converters import convert, convert_perceptual

    if args.perceptual:
        card = convert_perceptual(args.perceptual, args.out, allow_pickle=args.allow_pickle)
        print(f"{args.out}: {', '.join(card.configs)}")
        return
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
    from .converters import export

    export(assets.model_directory(args.model), args.out)
    print(f"{args.out}: diffusers folders, adapters and the prompt's embeddings")


def _info(args: argparse.Namespace) -> None:
    _print_info(assets.model_directory(args.model))


def _print_info(directory: str) -> None:
    from .cli_info import describe

    for name, value in describe(directory).items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(f"    {item}  {key}")
        else:
            print(f"{name + ':':<15} {value}")


def _timestep(args: argparse.Namespace) -> Sequence[str]:
    from . import converted, timestep
    from .data import DamagedImageWarning

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
            progress=lambda done: _show_progress("encoded", done, total),
        )
    _print_search(found)
    if args.out:
        timestep.write(found, args.out, chosen=args.criterion)
        print(f"{args.out}: timestep.json, timestep.svg")
    chosen = found.optima[args.criterion].timestep
    if args.write:
        converted.set_mid_timestep(model, chosen)
        print(f"{args.model}: mid-timestep {card.generator.mid_timestep} -> {chosen}")
    return [str(warning.message) for warning in caught]


def _degraded_pairs(
    args: argparse.Namespace, size: int
) -> "tuple[int, Iterator[tuple[np.ndarray, np.ndarray]]]":
    """How many, and batches of one: low- and high-quality images."""
    from .data import DataConfig, make_pipeline, open_sources

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
    return total, ((batch["lr"], batch["hr"]) for batch in batches)


def _print_search(found: "Search") -> None:
    from .timestep.optimum import TITLES

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
        from .converters import read_inception

        inception = read_inception(args.inception, allow_pickle=args.allow_pickle)
    with _outputs(args) as folders:
        result = evaluation.run(
            folders,
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
                perceptual=args.perceptual,
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


@contextlib.contextmanager
def _outputs(args: argparse.Namespace) -> Iterator[list[Path]]:
    """The folders of outputs to score: those given, and those that the given models make."""
    from .evaluation.restoring import restore_inputs

    with tempfile.TemporaryDirectory(prefix="omgsr-eval-") as scratch:
        made = Path(args.out or scratch) / "sr"
        folders = [Path(folder) for folder in args.sr]
        for model in args.model:
            folders.append(made / Path(model).resolve().name)
            restore_inputs(model, args.lr, args.hr, folders[-1], progress=_show_progress)
        yield folders


def _show_progress(what: str, done: int, total: int) -> None:
    """A line that counts on a terminal; elsewhere one line at the end."""
    if sys.stderr.isatty():
        print(f"\r{what}: {done} of {total}", end="", file=sys.stderr, flush=True)
    if done == total:
        start = "\n" if sys.stderr.isatty() else f"{what}: {total} of {total}\n"
        print(start, end="", file=sys.stderr, flush=True)


_COMMANDS = {
    "demo": _demo,
    "upscale": _upscale,
    "convert": _convert,
    "export": _export,
    "info": _info,
    "timestep": _timestep,
    "degrade": _degrade,
    "eval": _eval,
}


if __name__ == "__main__":
    sys.exit(main())
