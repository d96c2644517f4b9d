"""Z-Image at 1024 px with the losses of the revised paper (v2): LRR, L1, Dv3CD and GAN.

    omgsr convert --base Tongyi-MAI/Z-Image-Turbo --out models/z-image --mid-timestep 254 \
        --prompt "" --process-size 1024
    omgsr convert --perceptual weights --out models/perceptual      # dinov3_convnext (large)
    python scripts/train.py --config configs/omgsr_z_1024.py --workdir runs/z1024 \
        --config.model.path=models/z-image --config.model.perceptual=models/perceptual \
        --config.data.sources="('data/LSDIR','data/ffhq_10k.txt')"

On what: as configs/omgsr_f_1024_dinov3.py, at half the weights. At t = 254 Z-Image-Turbo's latents
have the share of noise, .505, that FLUX.1-dev's have at the 244 of the revised paper; for Z-Image,
whose schedule is shifted further, that is t = 145. `omgsr timestep` finds the t of your data.

What to expect: nobody has trained this configuration. There is no published OMGSR on Z-Image.

Arguments: as configs/omgsr_s_512_dinov3.py.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("omgsr_z_1024")
    config.seed = 123
    config.model.mid_timestep = 254
    config.model.encoder_rank = 64
    config.model.backbone_rank = 64
    config.model.remat = True
    config.losses.ldr = 5.0
    config.losses.l1 = 0.5
    config.losses.dv3cd = 5.0
    config.losses.gan = 0.5
    config.discriminator.backbone = "dinov3_convnext"
    config.discriminator.heads = "tower"
    config.discriminator.levels = (0, 1, 2)
    config.discriminator.layout = 1024
    config.discriminator.image_size = None
    config.optimizer.learning_rate = 5e-5
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.data.resolution = 1024
    config.data.degradation = 1024
    config.data.batch_size = 8
    config.run.steps = 6000
    config.run.save_every = 100
    return ablate(config, argument)
