"""OMGSR-F at 1024 px as in the revised paper (v2): FLUX.1-dev at t = 244, LRR, L1, Dv3CD and GAN.

    omgsr convert --base black-forest-labs/FLUX.1-dev --out models/flux
    omgsr convert --perceptual weights --out models/perceptual      # dinov3_convnext (large)
    python scripts/train.py --config configs/omgsr_f_1024_dinov3.py --workdir runs/f1024v2 \
        --config.model.path=models/flux --config.model.perceptual=models/perceptual \
        --config.data.sources="('data/LSDIR','data/ffhq_10k.txt')"

On what: as configs/omgsr_f_1024.py. The authors used two GPUs, 1 image each, 4 micro-batches: a
batch of 8, and 6,000 steps.

What to expect: nobody has trained this configuration with this code yet. The published training
script of OMGSR-F does not run as it is (a missing argument, an undefined name); this one does what
it describes.

Arguments: as configs/omgsr_s_512_dinov3.py.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("omgsr_f_1024_dinov3")
    config.seed = 123
    config.model.mid_timestep = 244
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
