"""OMGSR-nano's fine-tuning for fidelity, the second stage of scripts/train_nano.py.

    python scripts/train_nano.py --photos photos --validation photos_aside --workdir runs/nano

On its own, from the base that the first stage made:

    python scripts/train.py --config configs/nano.py --workdir runs/nano/again \
        --config.model.path=runs/nano/base --config.data.sources="('runs/nano/tiles',)"

On what: two CPU cores. What to expect: see docs/nano.md.

What differs from the paper: the backbone and the encoder's branch are trained whole, not through
adapters, and no network judges the result. Arguments: t=N, t=adaptive, no_ldr, no_l1,
no_spectrum.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("nano")
    config.model.encoder_rank = 0
    config.model.backbone_rank = 0
    config.model.whole = ("backbone.", "vae.encoder.branch.")
    config.model.precision = "fp32"
    config.model.process_size = 512
    config.losses.ldr = 0.1
    config.losses.l1 = 1.0
    config.losses.spectrum = 0.1
    config.optimizer.learning_rate = 8e-4
    config.optimizer.warmup = 50
    config.optimizer.weight_decay = 0.0
    config.optimizer.ema = 0.995
    config.data.resolution = 128
    config.data.batch_size = 8
    config.data.mixed = True
    config.data.flat = 8.0
    config.data.workers = 0
    config.validation.images = 24
    config.validation.every = 250
    config.run.steps = 4000
    config.run.cooldown = 600
    config.run.log_every = 25
    config.run.save_every = 250
    return ablate(config, argument)
