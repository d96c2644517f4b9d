"""Trains a small model in several ways, with several seeds, and says how they differ.

    # the papers' Tables 3 and 4: without each of the losses, and from the last timestep
    python scripts/study.py --photos tiles --validation photos_aside --workdir runs/losses \\
        --way no_ldr --way no_l1 --way no_features --way no_gan --way t=999

    # what acts against the lattice of a diffusion transformer
    python scripts/study.py --photos tiles --validation photos_aside --workdir runs/grid \\
        --config configs/nano_dit.py --architecture nano-dit --metrics grid,psnr,coherence \\
        --way losses.gan=0.05 --way losses.frequencies=1.0 --way model.shifts=True --averaged 2

    # a mid-timestep of each image's own, by how much the images have lost
    python scripts/study.py --photos tiles --validation photos_aside --workdir runs/adaptive \\
        --way t=adaptive --by_strength

A way is what it changes in the config, separated by commas: an argument that configs take (t=N,
t=adaptive, no_LOSS), or a setting. The config as it is, "plain", is trained beside them.
Photographs to train on should be squares that decode quickly, such as the tiles that
scripts/train_nano.py cuts. A diffusion prior behind nano's VAE is trained on them first; from it
each way is trained with each seed, for equally many steps. Stop it whenever you like: the same
command goes on. What it makes:

    prior/, base/          the prior (configs/nano_base.py), and the model that all begin from
    runs/WAY/SEED/         a run, whose curves scripts/plot_run.py draws
    models/WAY/SEED/       its result
    results.json           of the seeds that are done: metrics, and differences from plain training
    results.md             the same as tables
    crops.png              a crop of the validation, restored in every way, and what each changed

Exit codes: 0 finished; 2 an error in what was given; 3 stopped by a signal, to be resumed.
"""

import ast
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from flax import nnx
from ml_collections import ConfigDict, config_flags
from PIL import Image

import omgsr_jax
from omgsr_jax import architectures, assets, converted, files
from omgsr_jax.data import DataConfig, list_images, signed
from omgsr_jax.data.plan import STRENGTHS
from omgsr_jax.errors import InputError
from omgsr_jax.evaluation import seeds
from omgsr_jax.evaluation.metrics import BY_KEY, Metric, Settings
from omgsr_jax.evaluation.seeds import Scores
from omgsr_jax.inference import labels
from omgsr_jax.inference.options import require_fidelity, require_shifts
from omgsr_jax.inference.pictures import from_array
from omgsr_jax.losses.lpips import feature_distance
from omgsr_jax.process import timestep_of
from omgsr_jax.training import goodput, pretrain, slices
from omgsr_jax.training.config import TrainConfig, ValidationConfig
from omgsr_jax.training.config_dict import ablate
from omgsr_jax.training.pretrain import PretrainConfig
from omgsr_jax.training.run import Run
from omgsr_jax.training.validation import fixed_pairs, unit
from omgsr_jax.weights import below

FLAGS = flags.FLAGS
_CONFIGS = Path(__file__).parents[1] / "configs"
_PLAIN = "plain"
_DIFFERENCES = f"differences from {_PLAIN}"
config_flags.DEFINE_config_file("base", str(_CONFIGS / "nano_base.py"), "the prior")
config_flags.DEFINE_config_file("config", str(_CONFIGS / "nano_losses.py"), "the runs")
flags.DEFINE_string("architecture", "nano", "of the generator")
flags.DEFINE_string("photos", None, "the folder of photographs to train on", required=True)
flags.DEFINE_string("validation", None, "photographs for validation", required=True)
flags.DEFINE_string("workdir", None, "where everything goes", required=True)
flags.DEFINE_multi_string("way", [], "what a way changes in the config, such as no_ldr,t=999")
flags.DEFINE_multi_integer("averaged", [], "also plain with so many shifts at inference")
flags.DEFINE_multi_float("fidelity", [], "also plain with this fidelity at inference")
flags.DEFINE_list("metrics", "psnr,ssim,coherence,coherence_fine,features", "what is compared")
flags.DEFINE_bool("by_strength", False, "compare light, mild and published degradations apart")
flags.DEFINE_integer("seeds", 3, "runs of each way", lower_bound=1)
flags.DEFINE_integer("steps", None, "of each run, in place of the config's", lower_bound=1)

_CROPS = 4  # of each photograph of the validation
_CURVES, _POINTS = ("psnr", "coherence_fine"), 6  # validated during a run, how often
_BATCH = 8  # crops that are restored at once
_ENLARGED = 2  # of the picture's crops
_AMPLIFIED = 16


def _features(_: Settings) -> Callable[[np.ndarray, np.ndarray], Any]:
    """Through nano's own encoder, of every crop: no network that others trained is at hand."""
    vae = converted.read_vae(assets.model_directory(assets.NANO))
    graph, state = nnx.split(vae.encoder)

    def distance(sr: Any, hr: Any) -> Any:
        return feature_distance(sr[None], hr[None], nnx.merge(graph, state))

    of_each = jax.jit(jax.vmap(distance))
    return lambda sr, hr: of_each(signed(sr), signed(hr))


_ABOUT = "the loss of this name, through nano's encoder"
_METRICS = {key: metric for key, metric in BY_KEY.items() if metric.per_image}
_METRICS["features"] = Metric("features", "features", "lower", 4, _ABOUT, _features)


def main(argv: list[str]) -> int:
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells every file at INFO
    return slices.command(FLAGS.workdir, lambda: _study(Path(FLAGS.workdir)))


def _ways() -> list[str]:
    return [_PLAIN, *FLAGS.way]


def _study(workdir: Path) -> None:
    _require_what_is_asked()
    base = workdir / "base"
    if not base.exists():
        _make_base(workdir, base)
    sets = _Pairs.sets()
    scores: dict[str, list[Scores]] = {}  # of each row, for every seed
    for seed in range(FLAGS.seeds):
        for way in _ways():
            _train(workdir, base, way, seed)
        for row, restored in _restored(workdir, seed, sets):
            scores.setdefault(row, []).append(_scores(sets, restored))
            print(f"{row}, seed {seed}: {_shown(scores[row][-1])}", flush=True)
        _write(workdir, scores, sets)
    _draw(workdir, sets, scores)
    print(f"{workdir}: results.json, results.md, crops.png")


def _require_what_is_asked() -> None:
    """What is wrong is said before anything is trained."""
    for way in _ways():
        _config(way, 0, "")
    patch = architectures.named(FLAGS.architecture).backbone.patch
    for shifts in FLAGS.averaged:
        require_shifts(shifts, patch)
    for fidelity in FLAGS.fidelity:
        require_fidelity(fidelity)
    if unknown := set(FLAGS.metrics) - set(_METRICS):
        known = ", ".join(_METRICS)
        raise InputError(f"--metrics {', '.join(sorted(unknown))}: expected of {known}")


def _make_base(workdir: Path, out: Path) -> None:
    """nano's VAE, without what its encoder has learned, before a prior that is trained."""
    data = {"sources": (FLAGS.photos,)}
    changes = {"name": "study_prior", "architecture": FLAGS.architecture, "data": data}
    config = slices.config_of(PretrainConfig, FLAGS.base, changes)
    nano = converted.by_name_on_host(assets.model_directory(assets.NANO))
    vae = {name: array.astype(np.float32) for name, array in below("vae.", nano).items()}
    learned = [name for name in vae if name.startswith("encoder.branch.conv2.")]
    base = pretrain.base_of(config, vae | {name: np.zeros_like(vae[name]) for name in learned})
    make_task = partial(pretrain.prior_task, config, base)
    prior = slices.finished(workdir / "prior", config, make_task).ema
    t_m = architectures.named(FLAGS.architecture).mid_timestep
    base.with_prior(prior).write(out, mid_timestep=t_m, process_size=FLAGS.config.data.resolution)


def _train(workdir: Path, base: Path, way: str, seed: int) -> None:
    model = workdir / "models" / _name(way, seed)
    if model.exists():
        return
    run = Run.of(_config(way, seed, str(base)))
    make_task = partial(run.task, {key: BY_KEY[key].prepare(Settings()) for key in _CURVES})
    trained = slices.finished(_run_folder(workdir, way, seed), run.config, make_task).ema
    run.write_model(str(model), trained)


def _config(way: str, seed: int, base: str) -> TrainConfig:
    steps = {} if FLAGS.steps is None else {"steps": FLAGS.steps}
    changes = {
        "name": f"study_{way}_{seed}",
        "seed": seed,
        "model": {"path": base},
        "data": {"sources": (FLAGS.photos,)},
        "validation": {
            "sources": (FLAGS.validation,),
            "images": len(list_images(FLAGS.validation)),
            "every": max(1, (FLAGS.steps or FLAGS.config.run.steps) // _POINTS),
        },
        "run": steps,
    }
    return slices.config_of(TrainConfig, _changed(way), changes)


def _changed(way: str) -> ConfigDict:
    config = FLAGS.config.copy_and_resolve_references()
    for item in () if way == _PLAIN else way.split(","):
        name, _, value = item.partition("=")
        if "." not in name:
            config = ablate(config, item)
            continue
        try:
            config.update_from_flattened_dict({name: ast.literal_eval(value)})
        except (ValueError, SyntaxError, TypeError, KeyError) as error:
            raise InputError(f"--way {way}: {item} is no setting of the config: {error}") from error
    return config


def _name(way: str, seed: int) -> str:
    return f"{way}/{seed}"


def _run_folder(workdir: Path, way: str, seed: int) -> Path:
    return workdir / "runs" / _name(way, seed)


def _restored(
    workdir: Path, seed: int, sets: list["_Pairs"]
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Each row of the results, and the crops of each set as it restores them."""
    rows: list[tuple[str, str, dict[str, Any]]] = [(way, way, {}) for way in _ways()]
    rows += [(f"{_PLAIN}, mean of {n}", _PLAIN, {"shifts": n}) for n in FLAGS.averaged]
    rows += [(f"{_PLAIN}, fidelity {f:g}", _PLAIN, {"fidelity": f}) for f in FLAGS.fidelity]
    for row, way, said in rows:
        model = workdir / "models" / _name(way, seed)
        upscaler = omgsr_jax.load(model, batch=_BATCH, **said)
        lr = [crop for pairs in sets for crop in pairs.lr]
        images = upscaler.upscale_batch(lr, scale=1, color="none")
        yield row, np.split(np.stack([np.asarray(image) for image in images]), len(sets))


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """Crops of the validation, and the period of the lattice that is looked for."""

    strength: str  # of their degradation, if they are not of all
    lr: np.ndarray  # b h w 3, uint8
    hr: np.ndarray
    photographs: int
    period: int

    @classmethod
    def sets(cls) -> list["_Pairs"]:
        """One, degraded as in training, or one of each strength."""
        config = slices.config_of(TrainConfig, FLAGS.config, {"data": {"sources": (FLAGS.photos,)}})
        if not FLAGS.by_strength:
            return [cls._made("", config.data)]
        return [
            cls._made(strength, replace(config.data, mixed=False, degradation=degradation))
            for strength, degradation in STRENGTHS.items()
        ]

    @classmethod
    def _made(cls, strength: str, data: DataConfig) -> "_Pairs":
        photographs = len(list_images(FLAGS.validation))
        asked = ValidationConfig(sources=(FLAGS.validation,), images=_CROPS * photographs)
        lr, hr = (np.rint(unit(x) * 255).astype(np.uint8) for x in fixed_pairs(data, asked))
        return cls(strength, lr, hr, photographs, architectures.named(FLAGS.architecture).multiple)

    def called(self, metric: str) -> str:
        return f"{metric}, {self.strength}" if self.strength else metric

    def scores(self, restored: np.ndarray) -> Scores:
        settings = Settings(grid_period=self.period)
        found = {key: _METRICS[key].prepare(settings)(restored, self.hr) for key in FLAGS.metrics}
        return {self.called(key): np.asarray(values, np.float64) for key, values in found.items()}

    def table(self, content: Mapping[str, Any]) -> Iterator[str]:
        metrics = {self.called(key): _METRICS[key] for key in FLAGS.metrics}
        title = self.strength or "way"
        return seeds.table(title, metrics, content["means"], content[_DIFFERENCES])

    def by_photograph(self, values: np.ndarray) -> np.ndarray:
        """The means of the crops of each: these are not independent."""
        return values.reshape(-1, self.photographs).mean(0)


def _scores(sets: list[_Pairs], restored: list[np.ndarray]) -> Scores:
    found: Scores = {}
    for pairs, crops in zip(sets, restored, strict=True):
        found |= pairs.scores(crops)
    return found


def _write(workdir: Path, scores: Mapping[str, list[Scores]], sets: list[_Pairs]) -> None:
    pairs = sets[0]
    known = {
        "input": _scores(sets, [each.lr for each in sets]),
        "original": _scores(sets, [each.hr for each in sets]),
    }
    content = {
        "steps": FLAGS.steps or FLAGS.config.run.steps,
        "seeds": len(scores[_PLAIN]),
        "crops": len(pairs.hr),
        "photographs": pairs.photographs,
        "period": pairs.period,
        "step_seconds": {way: _step_seconds(workdir, way) for way in _ways()},
        "timesteps": _timesteps(workdir, len(scores[_PLAIN]), sets),
        "means": {
            **{row: seeds.means([found]) for row, found in known.items()},
            **{row: seeds.means(found) for row, found in scores.items()},
        },
        _DIFFERENCES: {
            row: seeds.differences(found, scores[_PLAIN], pairs.by_photograph)
            for row, found in scores.items()
            if row != _PLAIN
        },
    }
    files.write_text(workdir / "results.json", json.dumps(content, indent=1) + "\n")
    lines = [line for each in sets for line in [*each.table(content), ""]]
    files.write_text(workdir / "results.md", "\n".join(lines))


def _timesteps(workdir: Path, count: int, sets: list[_Pairs]) -> dict[str, dict[str, list[float]]]:
    """What adaptive models choose, the mean over each set's crops for every seed; and what the SNR
    criterion asks for: the mean, and the range of all crops but a tenth."""
    found: dict[str, dict[str, list[float]]] = {"criterion": {}}
    base = converted.read(workdir / "base")
    for pairs in sets:
        z_l, z_h = (base.encode(jnp.asarray(signed(crops))) for crops in (pairs.lr, pairs.hr))
        asked = timestep_of(base.process, jnp.log(jnp.square(z_l - z_h).mean((1, 2, 3))))
        of_set = [float(np.mean(asked)), *np.percentile(asked, [5, 95]).tolist()]
        found["criterion"][pairs.strength or "all"] = [round(one, 1) for one in of_set]
    for way, seed in itertools.product(_ways(), range(count)):
        model = converted.read(workdir / "models" / _name(way, seed))
        if model.timestep_head is not None:
            for pairs in sets:
                chosen = model.mid_timestep(model.encode(jnp.asarray(signed(pairs.lr))))
                of_set = found.setdefault(way, {}).setdefault(pairs.strength or "all", [])
                of_set.append(round(float(np.mean(chosen)), 1))
    return found


def _step_seconds(workdir: Path, way: str) -> float:
    """What a step took with the first seed, without waiting for data."""
    account = json.loads((_run_folder(workdir, way, 0) / goodput.FILE).read_text())
    steps = FLAGS.steps or FLAGS.config.run.steps
    return round(account["seconds"]["step"] / steps, 4)


def _shown(scores: Scores) -> str:
    return "; ".join(
        f"{key} {_METRICS[key.partition(',')[0]].show(values.mean())}"
        for key, values in scores.items()
    )


def _draw(workdir: Path, sets: list[_Pairs], scores: Mapping[str, list[Scores]]) -> None:
    """The crop on which the ways with the first seed differ most, in every way; below it what
    each has changed in the input, amplified."""
    pairs = sets[0]
    first = np.stack([scores[way][0][pairs.called(FLAGS.metrics[0])] for way in _ways()])
    chosen = int(np.argmax(np.ptp(first, axis=0)))
    low = pairs.lr[chosen]
    crops = {"input": low}
    crops |= {row: restored[0][chosen] for row, restored in _restored(workdir, 0, sets)}
    crops["original"] = pairs.hr[chosen]
    changes = {
        f"{label}: change x {_AMPLIFIED}": _amplified(crop, low) for label, crop in crops.items()
    }
    rows = [_row(crops), _row(changes)]
    Image.fromarray(np.concatenate(rows)).save(workdir / "crops.png")


def _amplified(crop: np.ndarray, low: np.ndarray) -> np.ndarray:
    change = crop.astype(np.int32) - low
    return np.clip(128 + _AMPLIFIED * change, 0, 255).astype(np.uint8)


def _row(crops: Mapping[str, np.ndarray]) -> np.ndarray:
    large = {
        label: from_array(crop.repeat(_ENLARGED, 0).repeat(_ENLARGED, 1))
        for label, crop in crops.items()
    }
    return labels.row(large).on_screen()


if __name__ == "__main__":
    app.run(main)
