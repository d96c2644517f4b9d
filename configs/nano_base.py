"""The base of OMGSR-nano: a VAE that is fitted, and a diffusion prior that is trained.

    python scripts/train_nano.py --photos photos --validation photos_aside --workdir runs/nano

trains it, and then OMGSR itself (configs/nano.py, configs/nano_detail.py). Settings are
--base.NAME=VALUE.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import settings
from omgsr_jax.training.pretrain import PretrainConfig


def get_config() -> ConfigDict:
    config = settings(PretrainConfig(name="nano_prior"))
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = 50
    config.optimizer.ema = 0.99
    config.optimizer.weight_decay = 0.0
    config.data.resolution = 128
    config.data.batch_size = 8
    config.data.mixed = True
    config.data.flat = 8.0
    config.data.workers = 0
    config.run.steps = 120
    config.run.log_every = 20
    config.run.save_every = 100
    return config
