"""OMGSR-nano's fine-tuning, the fourth stage of scripts/train_nano.py.

    python scripts/train_nano.py --photos photos --workdir runs/nano

On its own, from the base that the first three stages made:

    python scripts/train.py --config configs/nano.py --workdir runs/nano/again \
        --config.model.path=runs/nano/base --config.data.sources="('runs/nano/tiles',)"

On what: one GPU, or two CPU cores in slices. What to expect: see docs/nano.md.

What differs from the paper: the base is our own and small, so the adapters have a high rank; no
pre-trained VGG or DINO is at hand, so the perceptual loss looks through the base's own VAE encoder,
and the discriminator at the detail of the pixels themselves; textures come from a loss on the
distribution of patches, which teaches them in hundreds of steps. Arguments: t=N, no_ldr, no_l1,
no_features, no_texture, no_gan.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("nano")
    config.model.encoder_rank = 32
    config.model.backbone_rank = 64
    config.model.precision = "fp32"
    config.model.process_size = 512
    config.losses.ldr = 0.1
    config.losses.l1 = 5.0
    config.losses.features = 2.0
    config.losses.texture = 2.5
    config.losses.gan = 0.1
    config.discriminator.backbone = "detail"
    config.discriminator.heads = "patch"
    config.discriminator.width = 32
    config.discriminator.levels = (0,)
    config.discriminator.image_size = None
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup = 50
    config.optimizer.ema = 0.99
    config.data.resolution = 128
    config.data.batch_size = 4
    config.data.workers = 0
    config.validation.images = 24
    config.validation.every = 200
    config.run.steps = 2000
    config.run.save_every = 200
    return ablate(config, argument)
