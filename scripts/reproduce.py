"""The paper's tables, with rows of one's own models beside its rows.

    python scripts/reproduce.py --table 1 --data StableSR_testsets \\
        --models OMGSR-S=models/omgsr-s OMGSR-F=models/omgsr-f --out reproduced
    python scripts/reproduce.py --table 1 --data RealSR=realsr --models nano --out reproduced
    python scripts/reproduce.py --table 2 --models OMGSR-S=models/omgsr-s --out seconds

Tables 1 and 5 are scores on RealSR, DRealSR and DIV2K-Val. --data names the folder that holds the
sets under the names in which they are shared, or one set at a time. Every model restores the
inputs, and the results are scored as `omgsr eval --protocol papers` does. A model that is called as
a row of the paper is compared with that row, any other with OMGSR-S; models are compared with each
other on the same images. What cannot run, and what is not there, is said with where it is to be
had. --out receives table.json and table.md, and the results and a report for each set.

Table 2 is the time of one image on the device at hand, from 8-bit pixels to 8-bit pixels, with the
parameters of the model beside it.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omgsr_jax import assets, files
from omgsr_jax.cli.progress import Display, add_quiet, display
from omgsr_jax.cli.values import location, positive
from omgsr_jax.errors import InputError


def main() -> int:
    args = _parser().parse_args()
    try:
        models = _named(args.models)
        for model in models.values():
            assets.model_directory(model)  # one that is not there is told now, not in an hour
        files.require_new(args.out)
        with display("loading", quiet=args.quiet) as shown:
            report, text = (_times if args.table == 2 else _scores)(args, models, shown)
    except (OSError, InputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    files.write_text(args.out / "table.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    files.write_text(args.out / "table.md", text)
    print(text)
    return 0


def _named(models: list[str]) -> dict[str, str]:
    """By the name of its row: each model."""
    pairs = [(given if "=" in given else f"{given}={given}").partition("=") for given in models]
    named = {name: model for name, _, model in pairs}
    if len(named) < len(models):
        raise InputError("--models: two models have one name; write NAME=MODEL for one of them")
    return named


# Tables 1 and 5


def _scores(
    args: argparse.Namespace, models: Mapping[str, str], shown: Display
) -> tuple[dict[str, Any], str]:
    from omgsr_jax.evaluation import reproduction, shared_sets

    if not args.data:
        raise InputError("a table of scores needs test sets: give them with --data")
    found, missing = shared_sets.find_sets(args.data)
    if not found:
        raise InputError("\n".join(["no test set is there:", *missing.values()]))
    sets = {name: _scored(args, models, name, pairs, shown) for name, pairs in found.items()}
    report = {"table": args.table, "models": dict(models), "sets": sets, "missing": missing}
    return report, reproduction.page(args.table, sets, missing)


def _scored(
    args: argparse.Namespace, models: Mapping[str, str], name: str, pairs: Any, shown: Display
) -> dict[str, Any]:
    """All models on one set."""
    from omgsr_jax import evaluation
    from omgsr_jax.evaluation import reproduction
    from omgsr_jax.evaluation.restoring import restore_by_each

    made = restore_by_each(
        list(models.values()),
        pairs.lr,
        pairs.hr,
        args.out / name / "sr",
        begin=shown.begin,
        images=args.images,
        progress=lambda model, done, total: shown.count(f"{name}, {model}", done, total),
    )
    folders = dict(zip(models, list(made), strict=True))
    shown.begin(f"scoring {name}")
    found = evaluation.run(
        folders,
        pairs.hr,
        pairs.lr,
        out=args.out / name,
        protocol="papers",
        benchmark=name,
        settings=_settings(args),
        subset=args.images is not None,
        progress=lambda system, done, total: shown.count(f"scoring {system}", done, total),
    )
    return reproduction.reproduced(found, args.table)


def _settings(args: argparse.Namespace) -> Any:
    from omgsr_jax.converters import read_inception
    from omgsr_jax.evaluation import Settings

    inception = None
    if args.inception:
        inception = read_inception(args.inception, allow_pickle=args.allow_pickle)
    return Settings(niqe_params=args.niqe_params, inception=inception, perceptual=args.perceptual)


# Table 2


def _times(
    args: argparse.Namespace, models: Mapping[str, str], shown: Display
) -> tuple[dict[str, Any], str]:
    from omgsr_jax.evaluation.papers import SECONDS_ON, paper_seconds

    rows = []
    for name, model in models.items():
        shown.begin(f"timing {name}")
        rows.append({"method": name} | _timed(model, args))
    papers = [asdict(row) for row in paper_seconds()]
    report = {"table": 2, "rows": rows, "papers": papers, "papers_on": SECONDS_ON}
    return report, _page_of_times(report)


def _timed(model: str, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of an image, x4, with its pixels on the device before and behind."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import omgsr_jax
    from omgsr_jax import converted

    directory, device = assets.model_directory(model), jax.local_devices()[0]
    precision = "fp32" if device.platform == "cpu" else "bf16"
    upscaler = omgsr_jax.load(model, precision=precision, devices=[device])
    pixels = args.pixels or upscaler.process_size
    function = upscaler.function((pixels // 4, pixels // 4), scale=4)
    shape = (1, pixels // 4, pixels // 4, 3)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    function(images).block_until_ready()  # compiles
    seconds = [_seconds(function, images) for _ in range(args.runs)]
    return {
        "pixels": pixels,
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "runs": args.runs,
        "parameters": _parameters(converted.stored_shapes(directory)),
        "precision": precision,
        "device": device.device_kind,
        "load_average": os.getloadavg()[0],  # of what else runs
    }


def _seconds(function: Any, images: Any) -> float:
    began = time.perf_counter()
    function(images).block_until_ready()
    return time.perf_counter() - began


def _parameters(shapes: Mapping[str, Any]) -> dict[str, int]:
    """How many the VAE, the backbone and the adapters have."""
    counts = {"vae": 0, "backbone": 0, "adapters": 0}
    for name, leaf in shapes.items():
        part = "adapters" if ".lora_" in name else name.split(".")[0]
        if part in counts:  # and not the prompt's embeddings
            counts[part] += leaf.size
    return counts


def _page_of_times(report: Mapping[str, Any]) -> str:
    lines = [
        "# Table 2",
        "",
        "| | pixels | seconds | fastest to slowest | parameters, M: VAE, backbone, adapters | on |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        counts = ", ".join(f"{count / 1e6:.1f}" for count in row["parameters"].values())
        lines.append(
            f"| **{row['method']}** | {row['pixels']} | {row['seconds']:.4f} | "
            f"{row['fastest']:.4f} to {row['slowest']:.4f} | {counts} | "
            f"{row['device']}, {row['precision']} |"
        )
    for row in report["papers"]:
        lines.append(
            f"| {row['method']} | {row['pixels']} | {row['seconds']:.4f} | - | - | "
            f"{report['papers_on']} |"
        )
    return "\n".join([*lines, "", "Rows in plain type: the paper's."]) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=int, choices=(1, 2, 5), required=True)
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="MODEL", help="NAME=MODEL or MODEL"
    )
    parser.add_argument(
        "--data", nargs="+", metavar="DIR", help="a folder with the sets, or NAME=FOLDER for a set"
    )
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument(
        "--images", type=positive, metavar="N", help="of each set, evenly from its names"
    )
    for option, what in (("niqe-params", "FILE"), ("inception", "FILE"), ("perceptual", "DIR")):
        parser.add_argument(f"--{option}", type=location, metavar=what, help="see `omgsr eval`")
    parser.add_argument("--allow-pickle", action="store_true", help="see `omgsr eval`")
    parser.add_argument(
        "--pixels", type=positive, help="Table 2: of the output (default: the process size)"
    )
    parser.add_argument("--runs", type=positive, default=10, help="Table 2: default 10")
    add_quiet(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
