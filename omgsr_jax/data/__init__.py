"""Images in: files, the Real-ESRGAN degradation, and the Grain pipeline that feeds training.

    config = DataConfig(sources=("data/LSDIR", "data/ffhq_10k.txt"), resolution=512)
    for batch in to_device(make_pipeline(config, seed=0)):
        batch["lr"], batch["hr"]   # b h w 3 uint8; `signed` makes of them what networks take

Begin with pipeline.py (training) or degradation.py (test sets).

pipeline.py, workers.py          batches, and the processes that make them
sources.py, images.py            where images come from; reading and writing them
plan.py, kernels.py              what is done to an image; blur kernels
degradation.py                   that, on the host
degradation_jax.py, jpeg_jax.py  the same on the device

The degradation in JAX is `omgsr_jax.data.degradation_jax.degrade_batch`; it is imported only where
it is used, so that worker processes on the host stay light.
"""

from .config import DataConfig
from .degradation import FolderSummary, degrade, degrade_folder
from .images import DamagedImageError, list_images, read_image, signed, write_image
from .pipeline import (
    DamagedImageWarning,
    TooManyDamagedError,
    make_pipeline,
    to_device,
)
from .plan import MIXED, PRESETS, DegradationConfig, Plan, StageConfig, example_rng, sampled_plan
from .sources import open_sources, pack

__all__ = [
    "MIXED",
    "PRESETS",
    "DamagedImageError",
    "DamagedImageWarning",
    "DataConfig",
    "DegradationConfig",
    "FolderSummary",
    "Plan",
    "StageConfig",
    "TooManyDamagedError",
    "degrade",
    "degrade_folder",
    "example_rng",
    "list_images",
    "make_pipeline",
    "open_sources",
    "pack",
    "read_image",
    "sampled_plan",
    "signed",
    "to_device",
    "write_image",
]
