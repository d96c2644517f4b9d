"""Making a base from nothing: a VAE, textures for its decoder, a diffusion prior on its latents.

OMGSR adapts a pre-trained base. Where none may be shipped, a small one is trained here, with the
loop, the data and the checkpoints that fine-tuning uses too.

stages.py   begin here: each stage as a task of the loop
losses.py   what each of them minimises
task.py     the state and the step that they share
base.py     what comes out, and how it is written
config.py   the settings of a stage
"""

from .base import Base, base_of, fixed_images
from .config import PretrainConfig
from .losses import autoencoding_loss, denoising_loss, recoloured, texture_loss
from .stages import decoder_task, prior_task, vae_task, with_decoder
from .task import PretrainState

__all__ = [
    "Base",
    "PretrainConfig",
    "PretrainState",
    "autoencoding_loss",
    "base_of",
    "decoder_task",
    "denoising_loss",
    "fixed_images",
    "prior_task",
    "recoloured",
    "texture_loss",
    "vae_task",
    "with_decoder",
]
