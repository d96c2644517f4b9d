"""How far a model's latents are from those that it was trained on: Fig. 2 and 4 of the paper.

    python scripts/latent_gap.py --model models/sd21-base --data realsr --out gap

The model generates in 20 steps, from noise and from images. At every step its latent is held
against z_t, which it got at this timestep in training (Eq. 5 and 6): in a chain that nothing
disturbs, in chains with noise of several levels added where 16 steps are left, and in chains that
a low-quality image enters at the first timestep or at the mid-timestep. Adapters are left out: the
chain is that of the pre-trained networks. A model whose backbone was trained whole, as nano's was,
has no such networks in it: give its base, as scripts/train_nano.py keeps it.

--data is a folder with pairs: lr and hr, as `omgsr degrade` writes them, or test_LR and test_HR.
Low-quality images are enlarged bicubically, and both are cropped in the middle. --out receives

    gap.json     every curve with 95% intervals over images, and the search for the mid-timestep
    gap.svg      the curves
    steps.webp   the latents of a chain, decoded step by step, for the first image
    results.webp what the chains arrive at, for the first image
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from omgsr_jax import __version__, assets, chain, converted, curves, files, timestep
from omgsr_jax.cli.progress import Display, add_quiet, display
from omgsr_jax.cli.values import MODEL, not_negative, positive
from omgsr_jax.data import signed
from omgsr_jax.errors import InputError
from omgsr_jax.evaluation.pairs import PairedFiles, find_pairs, read_opaque
from omgsr_jax.evaluation.restoring import evenly
from omgsr_jax.evaluation.shared_sets import pairs_in
from omgsr_jax.evaluation.statistics import mean_interval
from omgsr_jax.generator import OMGSR
from omgsr_jax.inference import images, labels
from omgsr_jax.inference.pictures import from_array
from omgsr_jax.inference.prepare import for_inference
from omgsr_jax.timestep import gap, optimum

LEVELS = (0.1, 0.2, 0.4, 0.8)
THUMBNAIL, ACROSS = 96, 7  # px; pictures in a row
_START, _ADDED, _STEP = 0, 1, 2  # what random numbers are for; steps count on


def main() -> int:
    args = _parser().parse_args()
    try:
        with display(f"loading {args.model}", quiet=args.quiet) as shown:
            study = _studied(args, shown)
    except (OSError, InputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report = study.report()
    files.write_text(args.out / "gap.json", json.dumps(report, indent=1) + "\n")
    files.write_text(args.out / "gap.svg", _drawn(report))
    for name, sheet in study.sheets.items():
        files.write_image(args.out / name, sheet, quality=80)
    print(_summary(report))
    print(f"{args.out}: gap.json, gap.svg, {', '.join(study.sheets)}")
    return 0


@dataclass(frozen=True)
class Networks:
    """The parts of a generator, compiled."""

    encode: Callable[..., jax.Array]  # images in [-1, 1] to latents
    predict: Callable[..., jax.Array]  # z_t, t
    decode: Callable[..., jax.Array]

    @classmethod
    def of(cls, model: OMGSR) -> "Networks":
        graph, state = nnx.split(model)

        def compiled(method: str) -> Callable[..., jax.Array]:
            run = jax.jit(lambda state, *given: getattr(nnx.merge(graph, state), method)(*given))
            return partial(run, state)

        return cls(compiled("encode"), compiled("predict"), compiled("decode"))


class Study:
    """What is found, image by image."""

    def __init__(self, facts: dict[str, Any], steps: int):
        self.facts, self.steps = facts, steps
        self.sheets: dict[str, np.ndarray] = {}
        self.search: dict[str, Any] = {}
        self._gaps: dict[tuple[str, str], list[np.ndarray]] = {}
        self._powers: dict[tuple[str, str], list[np.ndarray]] = {}

    def add(self, panel: str, name: str, way: gap.Way) -> None:
        self._gaps.setdefault((panel, name), []).append(way.gaps)  # b n
        power = np.square(way.result).mean((1, 2, 3))
        self._powers.setdefault((panel, name), []).append(power)  # b

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for (panel, name), parts in self._gaps.items():
            power = np.concatenate(self._powers[panel, name]).mean()
            curve = self._curve(np.concatenate(parts)) | {"power_at_the_end": _short(power)}
            found.setdefault(panel, {})[name] = curve
        return self.facts | {"gaps": found, "search": self.search}

    def _curve(self, gaps: np.ndarray) -> dict[str, list[Any]]:
        """Means over images; `step` counts those done."""
        means = [mean_interval(column) for column in gaps.T]
        first = self.steps + 1 - len(means)
        return {
            "step": list(range(first, self.steps + 1)),
            "mean": [_short(mean.value) for mean in means],
            "low": [_short(mean.low) for mean in means],
            "high": [_short(mean.high) for mean in means],
        }


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _studied(args: argparse.Namespace, shown: Display) -> Study:
    directory = assets.model_directory(args.model)
    card = converted.read_card(directory)
    process, t_m = card.generator.process, card.generator.mid_timestep
    sampler, times = chain.sampler_of(process, args.sampler), chain.timesteps(process, args.steps)
    gap.number_of(times, args.left)
    side = _side(args.resolution or card.process_size, card.generator.multiple)
    pairs = _pairs(args, side)
    precision = "fp32" if jax.default_backend() == "cpu" else "bf16"
    networks = Networks.of(for_inference(converted.read_base(directory), precision))
    asked = {"sampler": sampler, "timesteps": times, "noise_at_steps_left": args.left}
    asked |= {"images": len(pairs), "pixels": side, "precision": precision, "seed": args.seed}
    study = Study(_of_model(args.model, card, directory) | asked, args.steps)
    latents = []
    for start in range(0, len(pairs), args.batch):
        shown.count("images", start, len(pairs))
        batch = [_cropped(pair, side) for pair in pairs[start : start + args.batch]]
        x_l, x_h = map(np.stack, zip(*batch, strict=True))
        z_l, z_h = (networks.encode(signed(x)) for x in (x_l, x_h))
        latents.append((z_l, z_h))
        noise = Noise(args.seed, range(start, start + len(batch)), z_h.shape)
        fresh = _fresh(noise) if sampler == "ddpm" else None
        steps = chain.Chain(networks.predict, process, times, fresh)
        ways = _ways(study, steps, noise, z_l, z_h, args.left, t_m)
        if not start:
            study.sheets = _sheets(networks, steps, ways, x_l[0], x_h[0])
    study.search = _searched(timestep.search(lambda z: z, process, latents), times)
    return study


def _of_model(name: str, card: converted.ModelCard, directory: str) -> dict[str, Any]:
    generator = card.generator
    adapted = generator.encoder_lora or generator.backbone_lora or generator.adaptive
    return {
        "omgsr_jax": __version__,
        "model": name,
        "digest": converted.digest(directory),
        "adapters": "left out" if adapted else "none",
        "process": converted.kind_name(card.generator.process),
        "mid_timestep": card.generator.mid_timestep,  # where that of each image began, if it did
        "prompt": card.prompt,
    }


def _searched(found: timestep.Search, times: list[int]) -> dict[str, Any]:
    """The search for the mid-timestep, with the criteria's values on the chain."""
    return {"moments": found.moments} | {
        name: {
            "timestep": best.timestep,
            "standard_error": best.error,
            "on_the_chain": [_short(best.curve[t]) for t in times],
        }
        for name, best in found.optima.items()
    }


class Noise:
    """Of each image by itself, so that it does not depend on the batch."""

    def __init__(self, seed: int, indices: Sequence[int], shape: tuple[int, ...]):
        self._seed, self._indices, self._shape = seed, indices, shape[1:]

    def __call__(self, purpose: int) -> jax.Array:
        return jnp.stack(
            [
                np.random.default_rng((self._seed, index, purpose)).standard_normal(
                    self._shape, np.float32
                )
                for index in self._indices
            ]
        )


def _fresh(noise: Noise) -> chain.Fresh:
    return lambda number, _: noise(_STEP + number)


def _ways(
    study: Study,
    steps: chain.Chain,
    noise: Noise,
    z_l: jax.Array,
    z_h: jax.Array,
    left: int,
    t_m: int,
) -> dict[str, gap.Way]:
    """All chains of a batch, by the names of their curves."""
    eps = noise(_START)
    plain = gap.undisturbed(steps, eps)
    names = [f"noise of {level}" for level in LEVELS]
    disturbed = dict(
        zip(names, gap.disturbed(steps, plain, eps, noise(_ADDED), left, LEVELS), strict=True)
    )
    entered = gap.from_images(steps, z_l, z_h, eps, t_m)
    study.add("noise added", "none", plain)
    for name, way in disturbed.items():
        study.add("noise added", name, way)
    for name, way in entered.items():
        study.add("an image enters", name, way)
    return {"undisturbed": plain, **disturbed, **entered}


def _side(asked: int, multiple: int) -> int:
    if asked < multiple:
        raise InputError(f"--resolution must be at least {multiple}, not {asked}")
    return asked - asked % multiple


def _pairs(args: argparse.Namespace, side: int) -> list[PairedFiles]:
    folders = pairs_in(args.data)
    found = evenly(find_pairs(folders.hr, folders.hr, folders.lr), args.images)
    for pair in found:
        if min(pair.size) < side:
            raise InputError(f"{pair.hr} is smaller than {side} px: give --resolution")
    return found


def _cropped(pair: PairedFiles, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The low-quality image, enlarged, and its original (h w 3, uint8)."""
    assert pair.lr
    large = labels.bicubic(images.read(pair.lr), pair.size).pixels(8)
    top, left = ((length - side) // 2 for length in pair.size)
    where = slice(top, top + side), slice(left, left + side)
    return large[where], read_opaque(pair.hr)[where]


# Pictures


def _sheets(
    networks: Networks,
    steps: chain.Chain,
    ways: dict[str, gap.Way],
    low: np.ndarray,
    high: np.ndarray,
) -> dict[str, np.ndarray]:
    names = [*(f"t = {t}" for t in steps.timesteps), "end"]
    decoded = partial(_decoded, networks)
    plain = dict(zip(names, map(decoded, ways["undisturbed"].latents), strict=True))
    results = {name: decoded(way.result) for name, way in ways.items()}
    return {
        "steps.webp": _sheet(plain),
        "results.webp": _sheet({"low quality": low, "original": high, **results}, across=5),
    }


def _decoded(networks: Networks, latents: jax.Array) -> np.ndarray:
    """The first of a batch, as uint8: h w 3."""
    image = np.asarray(networks.decode(latents[:1])[0], np.float32)
    return np.round((image + 1) * 127.5).astype(np.uint8)


def _sheet(pictures: dict[str, np.ndarray], across: int = ACROSS) -> np.ndarray:
    small = {name: from_array(_reduced(picture)) for name, picture in pictures.items()}
    rows = [
        labels.row(dict(list(small.items())[start : start + across])).pixels(8)
        for start in range(0, len(small), across)
    ]
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
         for row in rows]
    )  # fmt: skip


def _reduced(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(picture)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(image)


def _drawn(report: dict[str, Any]) -> str:
    panels: dict[str, curves.Curves] = {
        f"|z̄_t - z_t|², {panel}": [
            (name, list(zip(curve["step"], curve["mean"], strict=True)))
            for name, curve in found.items()
        ]
        for panel, found in report["gaps"].items()
    }
    against = list(enumerate(report["search"]["eq9"]["on_the_chain"]))
    panels["|z_L - z_t|² (Eq. 9)"] = [("z_L", against)]
    groups = dict.fromkeys(group for drawn in panels.values() for group, _ in drawn)
    return curves.draw(panels, _colours(list(groups)))


def _colours(groups: list[str]) -> dict[str, str]:
    """No panel has more of them than there are colours."""
    return {g: curves.COLOURS[i % len(curves.COLOURS)] for i, g in enumerate(groups)}


def _summary(report: dict[str, Any]) -> str:
    return "\n".join(_lines(report))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"{report['images']} images; mean of (z̄_t - z_t)², with its 95% interval at the end"
    for panel, found in report["gaps"].items():
        for name, curve in found.items():
            start, *_, end = curve["mean"]
            yield (
                f"  {panel}, {name}: {start:.4g} at step {curve['step'][0]}, {end:.4g} at the end "
                f"({curve['low'][-1]:.4g} to {curve['high'][-1]:.4g})"
            )
    for name, title in optimum.TITLES.items():
        found = report["search"][name]
        yield f"  {title}: t = {found['timestep']} ± {found['standard_error']:.1f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--data", type=Path, required=True, help="a folder with pairs")
    parser.add_argument("--out", type=Path, default=Path("latent_gap"))
    parser.add_argument("--images", type=positive, default=16, help="evenly from the names")
    parser.add_argument("--batch", type=positive, default=1, help="images at once")
    parser.add_argument(
        "--resolution", type=positive, help="of the crops (default: the process size)"
    )
    parser.add_argument("--steps", type=positive, default=20)
    parser.add_argument("--left", type=positive, default=16, help="steps, where noise is added")
    parser.add_argument(
        "--sampler", choices=chain.SAMPLERS, help="default: ddim, or euler for flow matching"
    )
    parser.add_argument("--seed", type=not_negative, default=0)
    add_quiet(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
