"""A small FLUX behind nano's VAE, whose patches have 8 pixels: for the study of the lattice.

    python scripts/study.py --photos tiles --validation photos_aside --workdir runs/grid \
        --config configs/nano_dit.py --architecture nano-dit --metrics grid,psnr,coherence \
        --way losses.gan=0.05 --way losses.frequencies=1.0 --way model.shifts=True

trains it in several ways and compares what they leave. One of them on its own, from the base that
the study made:

    python scripts/train.py --config configs/nano_dit.py --workdir runs/grid/again \
        --config.model.path=runs/grid/base --config.data.sources="('tiles',)"

On what: two CPU cores. What to expect: see docs/training.md, "Against the grid".

What differs from the paper: the backbone is trained whole, and only L1 counts. What acts against
the lattice is off: `--config.losses.gan=0.05` is the discriminator of latents,
`--config.losses.frequencies=1` the loss on frequencies, `--config.model.shifts` the shifts.
Arguments: t=N, t=adaptive, no_l1.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("nano_dit")
    config.model.encoder_rank = 0
    config.model.backbone_rank = 0
    config.model.whole = ("backbone.",)
    config.model.precision = "fp32"
    config.losses.l1 = 1.0
    config.discriminator.backbone = "latents"
    config.discriminator.heads = "token"
    config.discriminator.levels = (0,)
    config.discriminator.width = 64
    config.discriminator.image_size = None
    config.discriminator.relativistic = True
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup = 30
    config.optimizer.weight_decay = 0.0
    config.optimizer.ema = 0.98
    config.data.resolution = 128
    config.data.batch_size = 4
    config.data.mixed = True
    config.data.flat = 8.0
    config.data.workers = 0
    config.run.steps = 400
    config.run.log_every = 25
    config.run.save_every = 100
    config.run.keep = 1
    return ablate(config, argument)
