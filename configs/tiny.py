"""A small OMGSR that trains for real on two CPU cores in minutes, to see everything at work.

    python scripts/train.py --config configs/tiny.py --workdir runs/tiny \
        --config.data.sources="('photos',)" --config.validation.sources="('photos_aside',)"

On what: any machine; made for two cores. The base has random weights (always the same), so
nothing is downloaded; adapters of high rank, the VAE encoder's own features as perceptual loss and
discriminator.

What to expect: validation PSNR rises from 15.06 to 21.4 dB in 700 steps, 15 minutes (photographs
from CC0 collections, validated on Kodak's; docs/training.md has the curves). A random decoder never
paints well: what counts is that every part learns.

What differs from the paper: everything that size decides; the losses' form is the paper's.
Arguments: t=N, t=adaptive, no_ldr, no_mse, no_features, no_gan.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("tiny")
    config.model.architecture = "tiny"
    config.model.encoder_rank = 16
    config.model.backbone_rank = 16
    config.model.precision = "fp32"
    config.losses.ldr = 0.2
    config.losses.mse = 10.0
    config.losses.features = 0.2
    config.losses.gan = 0.01
    config.discriminator.backbone = "vae_encoder"
    config.discriminator.heads = "tower"
    config.discriminator.levels = (0, 1, 2)
    config.discriminator.layout = 64
    config.discriminator.image_size = None
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 20
    config.optimizer.ema = 0.95
    config.data.resolution = 64
    config.data.batch_size = 8
    config.data.workers = 0
    config.validation.images = 16
    config.validation.every = 50
    config.run.steps = 1000
    config.run.save_every = 50
    return ablate(config, argument)
