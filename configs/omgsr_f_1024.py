"""OMGSR-F at 1024 px as in the paper (v1): as at 512 px, judged on windows of 518 px (OC-GAN).

    omgsr convert --base black-forest-labs/FLUX.1-dev --out models/flux-1024 --mid-timestep 295 \
        --prompt "A high-resolution, 8K, ultra-realistic image with sharp focus, vibrant colors, \
and natural lighting."
    omgsr convert --perceptual weights --out models/perceptual      # vgg, lpips_vgg, dinov2
    python scripts/train.py --config configs/omgsr_f_1024.py --workdir runs/f1024 \
        --config.model.path=models/flux-1024 --config.model.perceptual=models/perceptual \
        --config.data.sources="('data/LSDIR','data/ffhq_10k.txt')"

On what: as configs/omgsr_f_512.py; four times the pixels.

What to expect: nobody has trained this configuration with this code yet.

Arguments: as configs/omgsr_s_512.py.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("omgsr_f_1024")
    config.seed = 123
    config.model.mid_timestep = 295
    config.model.encoder_rank = 64
    config.model.backbone_rank = 64
    config.model.remat = True
    config.losses.ldr = 5.0
    config.losses.mse = 2.0
    config.losses.oc_lpips = 5.0
    config.losses.gan = 0.5
    config.discriminator.chunk = 518
    config.optimizer.learning_rate = 5e-5
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.data.resolution = 1024
    config.data.degradation = 1024
    config.data.batch_size = 8
    config.run.steps = 25_000
    config.run.save_every = 1000
    return ablate(config, argument)
