"""The base of OMGSR-nano: a VAE (`vae`), its decoder anew (`decoder`), a diffusion prior (`prior`).

    python scripts/train_nano.py --photos photos --workdir runs/nano

trains them, and then OMGSR itself (configs/nano.py). Settings are --base.vae.NAME=VALUE and so on.

On what: one GPU, or two CPU cores in slices. What to expect: see docs/nano.md.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import settings
from omgsr_jax.training.pretrain import PretrainConfig


def get_config() -> ConfigDict:
    vae = _stage("nano_vae", resolution=64, batch_size=16, steps=2000)
    vae.validation.images = 32
    decoder = _stage("nano_decoder", resolution=128, batch_size=4, steps=1000)
    decoder.validation.images = 32
    prior = _stage("nano_prior", resolution=128, batch_size=8, steps=600)
    return ConfigDict({"vae": vae, "decoder": decoder, "prior": prior})


def _stage(name: str, *, resolution: int, batch_size: int, steps: int) -> ConfigDict:
    config = settings(PretrainConfig(name=name))
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = 50
    config.optimizer.ema = 0.99
    config.optimizer.weight_decay = 0.0
    config.data.resolution = resolution
    config.data.batch_size = batch_size
    config.data.workers = 0
    config.validation.every = 200
    config.run.steps = steps
    config.run.save_every = 200
    return config
