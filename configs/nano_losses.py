"""The papers' losses at nano's scale: for the study of what each of them gives.

    python scripts/study.py --photos tiles --validation photos_aside --workdir runs/losses \
        --way no_ldr --way no_l1 --way no_features --way no_gan --way t=999

trains it with and without each. One of them on its own, from the base that the study made:

    python scripts/train.py --config configs/nano_losses.py:no_gan --workdir runs/losses/again \
        --config.model.path=runs/losses/base --config.data.sources="('tiles',)"

On what: two CPU cores, 0.6 to 0.8 s a step, 0.3 without the discriminator. What to expect: after
150 steps results that are hardly better than their input, and far better than from t = 999; a seed
that the discriminator throws back for a while now and then. See docs/ablations.md.

What differs from the paper: the backbone is trained whole, the perceptual loss looks through the
model's own VAE encoder, and a small U-Net that judges pixels takes DINO's place, since no network
that others trained is at hand. Arguments: t=N, t=adaptive, no_ldr, no_l1, no_features, no_gan.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("nano_losses")
    config.model.encoder_rank = 0
    config.model.backbone_rank = 0
    config.model.whole = ("backbone.", "vae.encoder.branch.")
    config.model.precision = "fp32"
    config.losses.ldr = 0.1
    config.losses.l1 = 1.0
    config.losses.features = 0.1
    config.losses.gan = 0.02
    config.discriminator.backbone = "pixels"
    config.discriminator.heads = "unet"
    config.discriminator.levels = (0,)
    config.discriminator.width = 24
    config.discriminator.image_size = None
    config.discriminator.relativistic = True
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup = 30
    config.optimizer.weight_decay = 0.0
    config.optimizer.ema = 0.98
    config.data.resolution = 64
    config.data.batch_size = 8
    config.data.mixed = True
    config.data.flat = 8.0
    config.data.workers = 0
    config.run.steps = 300
    config.run.log_every = 25
    config.run.save_every = 300
    config.run.keep = 1
    return ablate(config, argument)
