"""The smallest run as a config file for scripts/train.py."""

from omgsr_jax.training.config_dict import ablate, defaults
from tests.training.runs import SETTINGS


def get_config(argument=""):
    config = defaults("smallest")
    config.update({name: v for name, v in SETTINGS.items() if isinstance(v, dict)})
    # Adam divides gradients by their size, also those that are rounding: sums in another order
    # would be seen in the losses soon.
    config.optimizer.epsilon = 1e-4
    config.data.resolution = 32
    config.data.batch_size = 4
    config.data.workers = 0
    config.run.log_every = 1
    config.run.save_every = 8
    config.run.steps = 60
    return ablate(config, argument)
