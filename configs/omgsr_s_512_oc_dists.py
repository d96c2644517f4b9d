"""OMGSR-S at 512 px as the code of August 2025 trains it: OC-EA-DISTS in place of OC-LPIPS.

    omgsr convert --base stabilityai/sd-turbo --out models/sd-turbo
    omgsr convert --perceptual weights --out models/perceptual      # vgg, dists, dinov2
    python scripts/train.py --config configs/omgsr_s_512_oc_dists.py --workdir runs/s512dists \
        --config.model.path=models/sd-turbo --config.model.perceptual=models/perceptual \
        --config.data.sources="('data/LSDIR','data/ffhq_10k.txt')"

On what: as configs/omgsr_s_512.py. DISTS looks through VGG16 at the images' windows and at those of
their Sobel edges, which doubles the perceptual loss's work.

What to expect: the authors published no figures for this loss, and nobody has trained it with this
code yet.

Arguments: t=N, t=adaptive, no_ldr, no_mse, no_oc_ea_dists, no_gan. What differs from the published
code: as in configs/omgsr_s_512.py; the UNet's rank is the published 32.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("omgsr_s_512_oc_dists")
    config.seed = 123
    config.model.mid_timestep = 195
    config.model.encoder_rank = 16
    config.model.backbone_rank = 32
    config.losses.ldr = 5.0
    config.losses.mse = 2.0
    config.losses.oc_ea_dists = 5.0
    config.losses.gan = 0.5
    config.optimizer.learning_rate = 2e-5
    config.data.batch_size = 8
    config.run.steps = 50_000
    config.run.save_every = 1000
    return ablate(config, argument)
