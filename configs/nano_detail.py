"""OMGSR-nano's detail, the third stage of scripts/train_nano.py: it goes on from the second.

    python scripts/train_nano.py --photos photos --validation photos_aside --workdir runs/nano

On its own, from what the second stage left:

    python scripts/train.py --config configs/nano_detail.py --workdir runs/nano/again \
        --config.model.path=runs/nano/faithful --config.data.sources="('runs/nano/tiles',)"

On what: two CPU cores. What to expect: see docs/nano.md.

What differs from the paper: a loss on detail takes the place of the perceptual loss, whose network
others trained, and nothing judges the result (docs/nano.md says what was tried). Arguments: t=N,
t=adaptive, no_ldr, no_l1, no_detail.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("nano_detail")
    config.model.encoder_rank = 0
    config.model.backbone_rank = 0
    config.model.whole = ("backbone.", "vae.encoder.branch.")
    config.model.precision = "fp32"
    config.model.process_size = 512
    config.losses.ldr = 0.1
    config.losses.l1 = 1.0
    config.losses.detail = 1.0
    config.optimizer.learning_rate = 7e-4
    config.optimizer.warmup = 20
    config.optimizer.weight_decay = 0.0
    config.optimizer.ema = 0.995
    config.data.resolution = 128
    config.data.batch_size = 8
    config.data.mixed = True
    config.data.flat = 8.0
    config.data.workers = 0
    config.validation.images = 24
    config.validation.every = 250
    config.run.steps = 4300
    config.run.cooldown = 1200
    config.run.log_every = 25
    config.run.save_every = 250
    return ablate(config, argument)
