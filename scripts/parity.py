"""Shows that JAX and PyTorch compute the same from the same weights.

    python scripts/parity.py --preset tiny
    python scripts/parity.py --base stabilityai/sd-turbo --adapter path/to/adapter --image photo.png
    python scripts/parity.py --preset tiny --train
    python scripts/parity.py --published path/to/OMGSR
    python scripts/parity.py --recipe hypir-sd2 --published path/to/HYPIR

Runs the published pipeline in PyTorch (fp64, fp32, bf16) and this one in JAX (fp32, bf16), stage by
stage: encode, backbone, z_P, decode; and block by block with --blocks. Prints a table, and writes
parity.json and parity.html (the images side by side, and where they differ) to --out.
Exits with 1 if JAX in fp32 is off PyTorch in fp64 by more than --tolerance at any stage.

With --train both sides train for 20 steps from the same weights, data and random numbers, with
losses through the VAE's own encoder and with the paper's, without and with quirks.
Exits with 1 if a loss differs by more than 1e-3 at any step, or the final adapters or heads have a
cosine below 0.9999.

With --published the other side is the published code itself: the scripts of a checkout of
github.com/wuer5/OMGSR, at 86297b2 or 8996613, on small random checkpoints, against ours with the
quirks of that version. Writes published_v1.json or published_v2.json, which names what stands in
for CUDA and the hub. Exits with 1 if a pixel differs by more than 1 of 255, a loss by more than
1e-4, or what training added by more than 1e-3. With --recipe the checkout is that of a relative;
writes parity-NAME.json, and exits with 1 if ours with its quirks is off by a relative error of more
than 1e-5 before rounding, or by more than 1 of 255.
"""

import argparse
import base64
import html
import io
import itertools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from conversion import backbones
from conversion.convert import convert
from conversion.parity import random_checkpoints
from conversion.parity.arrays import to_nchw
from conversion.parity.blocks import BlockError, block_outputs, compare_blocks, first_divergent
from conversion.parity.inference import STAGES, StageResults, TorchPipeline, compare_stages
from conversion.parity.processes import in_own_process
from conversion.parity.published import report as published
from conversion.parity.relatives import report as relatives
from conversion.parity.training import compare_training, small_training_config
from conversion.perceptual import convert_perceptual
from omgsr_jax import converted, files
from omgsr_jax.inference.prepare import for_inference
from omgsr_jax.models.stack import unstacked

# (who, reference): how the row is called
ROWS = {
    ("fp32", "torch_fp64"): "JAX fp32 to PyTorch fp64",
    ("torch_fp32", "torch_fp64"): "PyTorch fp32 to PyTorch fp64",
    ("fp32", "torch_fp32"): "JAX fp32 to PyTorch fp32",
    ("bf16", "torch_fp64"): "JAX bf16 to PyTorch fp64",
    ("torch_bf16", "torch_fp64"): "PyTorch bf16 to PyTorch fp64",
}


def main() -> int:
    args = _parser().parse_args()
    if args.recipe:
        return _relative(args)
    if args.published:
        return _published(args)
    if args.train:
        return _train(args)
    started = time.time()
    with _checkpoint(args) as (base, adapter, model_folder):
        x_l = _input(args)
        print(f"comparing on {x_l.shape[1]} x {x_l.shape[2]} px", flush=True)
        found = compare_stages(base, adapter, model_folder, x_l)
        blocks = _compare_blocks(base, adapter, model_folder, x_l) if args.blocks else {}
    report = {
        "weights": args.preset or args.base,
        "tolerance": args.tolerance,
        "relative_errors": {label: found.errors(*row) for row, label in ROWS.items()},
        "psnr_db": {label: found.psnr(*row) for row, label in ROWS.items()},
        "blocks": {part: [vars(block) for block in errors] for part, errors in blocks.items()},
        "first_divergent_block": _first_divergent(blocks, args.tolerance),
        "minutes": round((time.time() - started) / 60, 2),
        "peak_gb": round(max(map(_peak_gb, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))), 2),
        "versions": _versions(),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    files.write_text(args.out / "parity.json", json.dumps(report, indent=2) + "\n")
    files.write_text(args.out / "parity.html", _html(report, found, x_l))
    _print_table(report)
    print(f"wrote {args.out / 'parity.json'} and {args.out / 'parity.html'}")
    return 0 if max(found.errors("fp32", "torch_fp64").values()) <= args.tolerance else 1


def _published(args: argparse.Namespace) -> int:
    parts = args.part or published.PARTS
    how = {"steps": args.steps or 6, "seed": args.seed, "epsilon": args.epsilon}
    found = published.compare(args.published, parts, **how)
    path = args.out / f"published_{found['version']}.json"
    args.out.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps(found | {"versions": _versions()}, indent=2) + "\n")
    print(f"wrote {path}")
    return 0 if found["agree"] else 1


def _relative(args: argparse.Namespace) -> int:
    """One of OMGSR's relatives, against its own published code."""
    if args.published is None:
        raise SystemExit("--recipe compares with published code: say --published CHECKOUT")
    found = relatives.report(
        args.recipe, args.published, seed=args.seed, say=lambda text: print(text, flush=True)
    )
    path = relatives.write(found | {"versions": _versions()}, args.out)
    print(f"wrote {path}")
    return 0 if found["agrees"] else 1


def _train(args: argparse.Namespace) -> int:
    """Training on both sides, with and without quirks."""
    if args.preset != "tiny":
        raise SystemExit("--train compares on --preset tiny: PyTorch and JAX both train it here")
    steps = args.steps or 20
    report: dict[str, Any] = {"steps": steps, "versions": _versions()}
    agreed = True
    with tempfile.TemporaryDirectory(prefix="omgsr-parity-") as scratch:
        base, model_folder, source, perceptual = (
            Path(scratch) / name for name in ("base", "converted", "networks", "perceptual")
        )
        preset = random_checkpoints.PRESETS[args.preset]
        random_checkpoints.write_base(base, preset, seed=args.seed)
        convert(str(base), model_folder)
        random_checkpoints.write_perceptual(source, preset, seed=args.seed)
        convert_perceptual(source, perceptual)
        for losses, quirks in itertools.product(("own", "paper"), (None, "v1", "v2")):
            networks = (source, str(perceptual)) if losses == "paper" else (None, "")
            config = small_training_config(
                str(model_folder), quirks=quirks, perceptual=networks[1], steps=steps
            )
            found = compare_training(base, config, networks[0])
            report[f"{losses}, {quirks}"] = {
                "worst_relative_error": found.worst,
                "cosine": found.cosines,
                "cosine_of_updates": found.update_cosines,
                "losses": {"jax": found.ours, "pytorch": found.theirs},
            }
            print(f"losses={losses}, quirks={quirks}, {steps} steps")
            for term, error in found.worst.items():
                print(f"  {term:<14} worst relative error {error:.2e}")
            for part, cosine in found.cosines.items():
                update = found.update_cosines[part]
                print(f"  {part:<14} 1 - cosine {1 - cosine:.1e}, of updates {1 - update:.1e}")
            agreed &= max(found.worst.values()) <= 1e-3 and min(found.cosines.values()) >= 0.9999
    args.out.mkdir(parents=True, exist_ok=True)
    files.write_text(args.out / "train_parity.json", json.dumps(report, indent=2) + "\n")
    print(f"wrote {args.out / 'train_parity.json'}")
    return 0 if agreed else 1


@contextmanager
def _checkpoint(args: argparse.Namespace) -> Iterator[tuple[Path, Path | None, Path]]:
    """The diffusers folder, the adapter and the converted model to compare."""
    with tempfile.TemporaryDirectory(prefix="omgsr-parity-") as scratch:
        model_folder = Path(scratch) / "converted"
        if args.preset:
            preset = random_checkpoints.PRESETS[args.preset]
            base, adapter = Path(scratch) / "base", Path(scratch) / "adapter"
            print(f"writing a random checkpoint of the {args.preset} architecture", flush=True)
            in_own_process(random_checkpoints.write_base, base, preset, seed=args.seed)
            in_own_process(
                random_checkpoints.write_adapters, adapter, base, preset, seed=args.seed + 1
            )
        else:
            base, adapter = backbones.fetched(args.base), args.adapter
        print("converting", flush=True)
        in_own_process(
            convert,
            str(base),
            model_folder,
            adapter=str(adapter) if adapter else None,
            **_said(args),
        )
        yield base, adapter, model_folder


def _said(args: argparse.Namespace) -> dict[str, Any]:
    """What is not left to the base's recipe: of a flow's preset all, as it has several, or none."""
    chosen = {"mid_timestep": args.mid_timestep}
    kind = random_checkpoints.PRESETS[args.preset].kind if args.preset else random_checkpoints.SD
    if kind is random_checkpoints.SD:
        return chosen
    return {"prompt": "", "process_size": 512, "mid_timestep": chosen["mid_timestep"] or 244}


def _input(args: argparse.Namespace) -> np.ndarray:
    """The image to compare on, b h w 3 in [-1, 1]: the user's, or blurred noise."""
    size = args.size or (64 if "tiny" in (args.preset or "") else 512)
    if args.image:
        with files.open_image(args.image) as opened:
            image = opened.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(image, np.float32)[None] / 127.5 - 1
    coarse = np.random.default_rng(args.seed).integers(0, 256, (size // 8, size // 8, 3), np.uint8)
    image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)[None] / 127.5 - 1


def _compare_blocks(
    base: Path, adapter: Path | None, model_folder: Path, x_l: np.ndarray
) -> dict[str, list[BlockError]]:
    """Every module of the three networks in fp32, each network fed with PyTorch's own input."""
    import torch

    generator = converted.read_card(model_folder).generator
    prompt = converted.read_prompt(model_folder)
    with jax.default_matmul_precision("highest"):
        model = for_inference(converted.read(model_folder), "fp32")
        # A stack of blocks shows none of them.
        apart = unstacked(model.backbone)
        torch_side = TorchPipeline(base, adapter, generator.mid_timestep, prompt)
        stages = torch_side.stages(x_l)
        z_l, z_p = (torch.tensor(stages[name].transpose(0, 3, 1, 2)) for name in ("encode", "z_P"))
        time = generator.process.conditioning(generator.mid_timestep)
        batch = {name: np.repeat(value[None], len(x_l), 0) for name, value in prompt.items()}
        comparisons = {
            "encoder": (
                model.vae, lambda m, x: m.encode(x).mean, x_l,
                torch_side.vae, lambda: torch_side.encode(to_nchw(x_l)),
            ),
            "backbone": (
                apart, lambda m, z: m(z, time, **batch), stages["encode"],
                torch_side.predictor.network, lambda: torch_side.predict(z_l),
            ),
            "decoder": (
                model.vae, lambda m, z: m.decode(m.unscale(z)), stages["z_P"],
                torch_side.vae, lambda: torch_side.decode(z_p),
            ),
        }  # fmt: skip
        errors = {}
        for part, (ours, run_ours, value, theirs, run_theirs) in comparisons.items():
            _, outputs = block_outputs(ours, run_ours, value)
            errors[part] = compare_blocks(outputs, theirs, run_theirs)
    return errors


def _first_divergent(
    blocks: dict[str, list[BlockError]], tolerance: float
) -> dict[str, Any] | None:
    for part, errors in blocks.items():
        block = first_divergent(errors, tolerance)
        if block:
            return {"network": part, **vars(block)}
    return None


def _print_table(report: dict[str, Any]) -> None:
    print("\nrelative error")
    print(f"{'':<30}" + "".join(f"{stage:>11}" for stage in STAGES) + f"{'image PSNR':>13}")
    for label, errors in report["relative_errors"].items():
        cells = "".join(f"{errors[stage]:>11.2e}" for stage in STAGES)
        print(f"{label:<30}{cells}{report['psnr_db'][label]:>10.1f} dB")
    for part, errors in report["blocks"].items():
        worst = max(errors, key=lambda block: block["error"])
        print(f"{part}: {len(errors)} blocks, worst {worst['error']:.2e} at {worst['name']}")
    if report["blocks"]:
        first = report["first_divergent_block"]
        print(f"first divergent block: {first['network']}.{first['name']}" if first else
              f"no block differs by more than {report['tolerance']:g}")  # fmt: skip
    print(f"{report['minutes']} minutes, peak memory {report['peak_gb']} GB")


def _html(report: dict[str, Any], found: StageResults, x_l: np.ndarray) -> str:
    reference, ours = (found.results[who]["decode"][0] for who in ("torch_fp32", "fp32"))
    difference = np.abs(ours - reference).max(-1, keepdims=True)
    peak = max(float(difference.max()), 1e-12)
    pictures = {
        "input": x_l[0],
        "PyTorch fp32": reference,
        "JAX fp32": ours,
        f"difference, white = {peak:.1e}": difference / peak * 2 - 1,
    }
    figures = "".join(
        f"<figure><img src='{_png(image)}'><figcaption>{label}</figcaption></figure>"
        for label, image in pictures.items()
    )
    rows = "".join(
        f"<tr><th>{label}</th>"
        + "".join(f"<td>{errors[stage]:.2e}</td>" for stage in STAGES)
        + f"<td>{report['psnr_db'][label]:.1f} dB</td></tr>"
        for label, errors in report["relative_errors"].items()
    )
    blocks = "".join(
        f"<h2>{part}</h2><table>"
        + "".join(
            f"<tr><th>{html.escape(b['name'])}</th><td>{b['error']:.2e}</td></tr>" for b in errors
        )
        + "</table>"
        for part, errors in report["blocks"].items()
    )
    return _PAGE.format(
        title=html.escape(f"Parity: {report['weights']}"),
        head="".join(f"<th>{stage}</th>" for stage in (*STAGES, "image PSNR")),
        rows=rows,
        figures=figures,
        blocks=blocks,
        versions=html.escape(", ".join(f"{k} {v}" for k, v in report["versions"].items())),
    )


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em }}
table {{ border-collapse: collapse }} th, td {{ padding: .2em .8em; text-align: right }}
th {{ font-weight: 600 }} tr + tr {{ border-top: 1px solid #ddd }}
.row {{ display: flex; flex-wrap: wrap; gap: 1em }} figure {{ margin: 0; flex: 1 1 14em }}
img {{ width: 100%; image-rendering: pixelated }} figcaption {{ color: #555 }}
</style>
<h1>{title}</h1><p>Relative errors, stage by stage; each stage inherits those before it.</p>
<table><tr><th></th>{head}</tr>{rows}</table>
<div class="row">{figures}</div>{blocks}<p>{versions}</p></html>
"""


def _png(image: np.ndarray) -> str:
    pixels = np.rint((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _peak_gb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1e6


def _versions() -> dict[str, str]:
    import diffusers
    import flax
    import torch

    return {lib.__name__: lib.__version__ for lib in (jax, flax, torch, diffusers)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--preset", choices=random_checkpoints.PRESETS, help="random weights of an architecture"
    )
    source.add_argument("--base", help="a diffusers folder, or a hub id")
    source.add_argument(
        "--published", type=Path, metavar="CHECKOUT", help="of the published code, to run it itself"
    )
    parser.add_argument(
        "--part",
        action="append",
        choices=published.PARTS,
        help="of --published, may be repeated (default: all)",
    )
    parser.add_argument(
        "--recipe",
        choices=relatives.RECIPES,
        help="of --published: a relative's, whose checkout it is",
    )
    parser.add_argument("--adapter", type=Path, help="folder with the published sub-folders")
    parser.add_argument(
        "--mid-timestep", type=int, help="default: the only one of the base's recipe"
    )
    parser.add_argument("--image", help="a picture to compare on (default: blurred noise)")
    parser.add_argument("--size", type=int, help="pixels per side (default: 512, tiny: 64)")
    parser.add_argument("--blocks", action="store_true", help="compare every block in fp32 too")
    parser.add_argument("--train", action="store_true", help="compare training, not inference")
    parser.add_argument(
        "--steps", type=int, help="of training (default: 20 of --train, 6 of --published)"
    )
    parser.add_argument(
        "--epsilon",
        type=float,
        default=published.EPSILON,
        help="Adam's, on both sides, in training of --published (default: %(default)s)",
    )
    parser.add_argument("--tolerance", type=float, default=2e-5, help="of fp32 (default: 2e-5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/parity"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
