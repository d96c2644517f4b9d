"""Trains OMGSR-nano from a folder of photographs: a VAE, a diffusion prior, then OMGSR itself.

    python scripts/train_nano.py --photos photos --validation photos_aside --workdir runs/nano

Everything goes into the work directory. Stop it with Ctrl-C or SIGTERM whenever you like: it saves,
and the same command goes on from there. What it makes, in order:

    tiles/     the photographs, also at smaller sizes, cut into squares that decode quickly
    prior/     stage 1, configs/nano_base.py, behind a VAE that is fitted to the tiles
    base/      both as a converted model, at the mid-timestep that its own latents ask for
    fidelity/  stage 2, configs/nano.py, by the ordinary train step
    faithful/  its result as a converted model
    detail/    stage 3, configs/nano_detail.py
    model/     the result, in bf16: a mean of the weights of stages 2 and 3

Exit codes: 0 finished; 2 an error in what was given; 3 stopped by a signal, to be resumed.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from jax import Array
from ml_collections import ConfigDict, config_flags
from PIL import Image

from omgsr_jax import converted, files, timestep
from omgsr_jax.cost.flops import utilisation
from omgsr_jax.data import DataConfig, list_images, make_pipeline, read_image, signed
from omgsr_jax.errors import InputError
from omgsr_jax.evaluation.fidelity import psnr, ssim
from omgsr_jax.training import pretrain, slices
from omgsr_jax.training.config import TrainConfig
from omgsr_jax.training.pretrain import PretrainConfig
from omgsr_jax.training.run import Run

FLAGS = flags.FLAGS
_CONFIGS = Path(__file__).parents[1] / "configs"
config_flags.DEFINE_config_file("base", str(_CONFIGS / "nano_base.py"), "stage 1")
config_flags.DEFINE_config_file("config", str(_CONFIGS / "nano.py"), "stage 2")
config_flags.DEFINE_config_file("detail", str(_CONFIGS / "nano_detail.py"), "stage 3")
flags.DEFINE_string("photos", None, "the folder of photographs to train on", required=True)
flags.DEFINE_string("validation", None, "photographs for validation", required=True)
flags.DEFINE_string("workdir", None, "where everything goes", required=True)

_TILE = 256  # px
_STRIDE = 224
_SCALES = (1.0, 0.5)  # of the photographs: smaller ones are sharper
_PROCESS_SIZE = 512  # px
_SEARCHED = 64  # tiles
_CRITERION = "snr"
_FLAT = 6.0  # grey levels: tiles that vary less teach little
_OF_DETAIL = 0.7  # the share of stage 3 in the result


def main(argv: list[str]) -> int:
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells every file at INFO
    return slices.command(FLAGS.workdir, lambda: _train(Path(FLAGS.workdir)))


def _train(workdir: Path) -> None:
    tiles, base, faithful, model = (
        workdir / name for name in ("tiles", "base", "faithful", "model")
    )
    if model.exists():
        raise InputError(
            f"{model} is there already: remove it, and raise --detail.run.steps, to train on"
        )
    # Before hours of training: what is wrong with a later stage's settings is said now.
    fidelity = _config(TrainConfig, FLAGS.config, tiles, model={"path": str(base)})
    detail = _config(TrainConfig, FLAGS.detail, tiles, model={"path": str(faithful)})
    if not tiles.exists():
        cut(FLAGS.photos, tiles)
    if not base.exists():
        _make_base(workdir, base)
    if not faithful.exists():
        run, trained = _adapt(workdir / "fidelity", fidelity)
        run.write_model(str(faithful), trained)
    run, trained = _adapt(workdir / "detail", detail)
    run.write_model(str(model), _mixed(trained, faithful), precision="bf16")
    print(f"{model}: try it with `omgsr upscale IN -o OUT --model {model}`")


def _adapt(workdir: Path, config: TrainConfig) -> tuple[Run, Any]:
    """Stage 2 or 3 to its end, and the average of what it trains."""
    run = Run.of(config)
    metrics, used = {"psnr": psnr, "ssim": ssim}, utilisation(run.blueprint)
    return run, slices.finished(workdir, config, lambda: run.task(metrics, used)).ema


def _mixed(trained: Mapping[str, Array], faithful: Path) -> dict[str, Array]:
    """Stage 3 overdoes contrast, stage 2 is soft: their mean does less of either."""
    before = converted.by_name_on_host(faithful)
    return {
        name: _OF_DETAIL * after + (1 - _OF_DETAIL) * jnp.asarray(before[name], jnp.float32)
        for name, after in trained.items()
    }


def _make_base(workdir: Path, out: Path) -> None:
    """Stage 1, and the search for the mid-timestep that the VAE's latents ask for."""
    config = _config(PretrainConfig, FLAGS.base, workdir / "tiles")
    base = pretrain.base_of(config, pretrain.fitted_vae(config))
    make_task = partial(pretrain.prior_task, config, base)
    prior = slices.finished(workdir / "prior", config, make_task).ema
    found = _search(config, base, workdir / "tiles")
    timestep.write(found, workdir / "timestep", chosen=_CRITERION)
    base.with_prior(prior).write(
        out, mid_timestep=found.optima[_CRITERION].timestep, process_size=_PROCESS_SIZE
    )


def _search(config: PretrainConfig, base: pretrain.Base, tiles: Path) -> timestep.Search:
    searched = DataConfig(
        sources=(str(tiles),),
        resolution=_TILE,
        batch_size=_SEARCHED,
        mixed=True,
        workers=0,
    )
    batch = next(iter(make_pipeline(searched, config.seed)))
    pairs = zip(signed(batch["lr"])[:, None], signed(batch["hr"])[:, None], strict=True)
    return timestep.search(timestep.encoder(base.vae), base.generator.process, pairs)


def _config(kind: type, settings: ConfigDict, tiles: Path, **more: Mapping[str, Any]) -> Any:
    """A stage's config, which learns here where its data are."""
    given = {"data": {"sources": (str(tiles),)}, "validation": {"sources": (FLAGS.validation,)}}
    changes = {group: values for group, values in (given | more).items() if group in settings}
    return slices.config_of(kind, settings, changes)


def cut(photos: str, tiles: Path) -> None:
    """Cuts photographs into tiles, saved without compression."""
    paths = list_images(photos)
    count = 0
    with files.new_directory(tiles) as folder:
        for path in paths:
            for name, tile in _tiles(path):
                Image.fromarray(tile).save(folder / name)
                count += 1
    print(f"{tiles}: {count} tiles of {len(paths)} photographs", flush=True)


def _tiles(path: str) -> Iterator[tuple[str, np.ndarray]]:
    """Those of a photograph that show something, each with a file name."""
    whole = Image.fromarray(read_image(path))
    for scale in _SCALES:
        size = [round(side * scale) for side in whole.size]
        pixels = np.asarray(whole.resize(size, Image.Resampling.LANCZOS))  # h w 3
        for top in range(0, size[1] - _TILE + 1, _STRIDE):
            for left in range(0, size[0] - _TILE + 1, _STRIDE):
                tile = pixels[top : top + _TILE, left : left + _TILE]
                if tile.std() > _FLAT:
                    yield f"{Path(path).stem}_{scale}_{top}_{left}.bmp", tile


if __name__ == "__main__":
    app.run(main)
