"""The base of OMGSR-nano: a VAE (`vae`) and a diffusion prior on its latents (`prior`).

    python scripts/train_nano.py --photos photos --workdir runs/nano

trains both, and then OMGSR itself (configs/nano.py). Settings are --base.vae.NAME=VALUE and
--base.prior.NAME=VALUE.

On what: one GPU, or two CPU cores in slices. What to expect: see docs/nano.md.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import settings
from omgsr_jax.training.pretrain import PretrainConfig


def get_config() -> ConfigDict:
    return ConfigDict({"vae": _vae(), "prior": _prior()})


def _vae() -> ConfigDict:
    config = settings(PretrainConfig(name="nano_vae"))
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = 50
    config.optimizer.ema = 0.99
    config.optimizer.weight_decay = 0.0
    config.data.resolution = 64
    config.data.batch_size = 16
    config.data.workers = 0
    config.validation.images = 32
    config.validation.every = 200
    config.run.steps = 2000
    config.run.save_every = 200
    return config


def _prior() -> ConfigDict:
    config = settings(PretrainConfig(name="nano_prior"))
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = 50
    config.optimizer.ema = 0.99
    config.optimizer.weight_decay = 0.0
    config.data.resolution = 128
    config.data.batch_size = 16
    config.data.workers = 0
    config.run.steps = 1500
    config.run.save_every = 200
    return config
