"""OMGSR-nano's textures, the third stage of scripts/train_nano.py: it goes on from the second.

    python scripts/train_nano.py --photos photos --validation photos_aside --workdir runs/nano \
        --textures

A U-Net that judges every pixel of a restored image beside its original takes the place of the
paper's discriminator, whose DINO may not be shipped. On what: hours of two CPU cores. Arguments:
t=N, no_ldr, no_l1, no_spectrum, no_gan.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("nano_texture")
    config.model.encoder_rank = 0
    config.model.backbone_rank = 0
    config.model.whole = ("backbone.", "vae.encoder.branch.")
    config.model.precision = "fp32"
    config.model.process_size = 512
    config.losses.ldr = 0.1
    config.losses.l1 = 1.0
    config.losses.spectrum = 0.1
    config.losses.gan = 0.05
    config.discriminator.backbone = "pixels"
    config.discriminator.heads = "unet"
    config.discriminator.levels = (0,)
    config.discriminator.width = 24
    config.discriminator.image_size = None
    config.discriminator.relativistic = True
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.0
    config.optimizer.ema = 0.999
    config.data.resolution = 128
    config.data.batch_size = 8
    config.data.mixed = True
    config.data.flat = 8.0
    config.data.workers = 0
    config.validation.images = 24
    config.validation.every = 250
    config.run.steps = 10000
    config.run.log_every = 25
    config.run.save_every = 250
    return ablate(config, argument)
