"""Config files for training: what they start from, and the arguments that they take.

A file in `configs/` has `get_config(argument)`, which returns a ConfigDict; every setting in it can
be overridden on the command line: `--config.optimizer.learning_rate=1e-4`.
"""

import dataclasses
import typing
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from ..errors import InputError
from .config import TrainConfig


def defaults(name: str) -> ConfigDict:
    """All settings at their defaults; an optional one may stay None."""
    config = settings(TrainConfig())
    config.name = name
    return config


def ablate(config: ConfigDict, argument: str) -> ConfigDict:
    """Applies the ablations of the paper's Tables 3 and 4, separated by commas.

    `t=999` takes another mid-timestep, `t=adaptive` one for each image; `no_ldr`, `no_mse`,
    `no_oc_lpips`, `no_gan` and so on leave one loss out.
    """
    for item in filter(None, argument.split(",")):
        name, _, value = item.partition("=")
        active = [loss for loss, weight in config.losses.items() if weight]
        if name == "t" and value.isdigit():
            config.model.mid_timestep = int(value)
        elif name == "t" and value == "adaptive":
            config.model.adaptive = True
        elif name.removeprefix("no_") in active and name.startswith("no_") and not value:
            config.losses[name.removeprefix("no_")] = 0.0
        else:
            options = ", ".join(f"no_{loss}" for loss in active)
            raise InputError(
                f"the config {config.name} has no argument {item!r}: expected t=N, t=adaptive or "
                f"{options}"
            )
    if argument:
        config.name = f"{config.name}:{argument}"
    return config


def settings(part: Any) -> ConfigDict:
    """A config's dataclass as settings that can be overridden."""
    found = ConfigDict()
    hints = typing.get_type_hints(type(part))
    for item in dataclasses.fields(part):
        value = getattr(part, item.name)
        if dataclasses.is_dataclass(value):
            value = settings(value)
        elif value is None:
            value = placeholder(next(t for t in typing.get_args(hints[item.name])))
        found[item.name] = value
    return found
