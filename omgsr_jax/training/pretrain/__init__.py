"""Making a base from nothing: a VAE that is fitted, and a diffusion prior on its latents.

OMGSR adapts a pre-trained base. Where none may be shipped, a small one is trained here, with the
loop, the data and the checkpoints that fine-tuning uses too.

stages.py   begin here: the VAE, and the prior as a task of the loop
losses.py   what the prior minimises
task.py     its state and its step
base.py     what comes out, and how it is written
config.py   the settings
"""

from .base import Base, base_of
from .config import PretrainConfig
from .losses import denoising_loss
from .stages import fitted_vae, prior_task
from .task import PretrainState

__all__ = [
    "Base",
    "PretrainConfig",
    "PretrainState",
    "base_of",
    "denoising_loss",
    "fitted_vae",
    "prior_task",
]
