"""OMGSR-F at 512 px as in the paper (v1): FLUX.1-dev at t = 295, LDR, MSE, OC-LPIPS and GAN.

    omgsr convert --base black-forest-labs/FLUX.1-dev --out models/flux-512 --mid-timestep 295 \
        --process-size 512 --prompt "A high-resolution, 8K, ultra-realistic image with sharp \
focus, vibrant colors, and natural lighting."
    omgsr convert --perceptual weights --out models/perceptual      # vgg, lpips_vgg, dinov2
    python scripts/train.py --config configs/omgsr_f_512.py --workdir runs/f512 \
        --config.model.path=models/flux-512 --config.model.perceptual=models/perceptual \
        --config.data.sources="('data/LSDIR','data/ffhq_10k.txt')"

On what: the base has 24 GB in bf16 and is divided over all devices (`fsdp`), each of which has
images of its own; see docs/flux.md. The paper used two GPUs, 1 image each, 4 micro-batches: a batch
of 8.

What to expect: the paper reports PSNR 26.62, SSIM 0.7625, LPIPS 0.2586 on RealSR.
Nobody has trained this configuration with this code yet.

Arguments: as configs/omgsr_s_512.py, and what is said there on the paper holds here too.
"""

from ml_collections import ConfigDict

from omgsr_jax.training.config_dict import ablate, defaults


def get_config(argument: str = "") -> ConfigDict:
    config = defaults("omgsr_f_512")
    config.seed = 123
    config.model.mid_timestep = 295
    config.model.encoder_rank = 64
    config.model.backbone_rank = 64
    config.model.remat = True
    config.losses.ldr = 5.0
    config.losses.mse = 2.0
    config.losses.oc_lpips = 5.0
    config.losses.gan = 0.5
    config.optimizer.learning_rate = 2e-5
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.data.batch_size = 8
    config.run.steps = 50_000
    config.run.save_every = 1000
    return ablate(config, argument)
