"""The smallest run as a config file for scripts/train.py."""

from omgsr_jax.training.config_dict import ablate, defaults
from tests.training.runs import SETTINGS


def get_config(argument=""):
    config = defaults("smallest")
    config.update({name: v for name, v in SETTINGS.items() if isinstance(v, dict)})
    config.data.resolution = 32
    config.data.batch_size = 4
    config.data.workers = 0
    config.run.log_every = 1
    config.run.save_every = 8
    config.run.steps = 60
    return ablate(config, argument)
