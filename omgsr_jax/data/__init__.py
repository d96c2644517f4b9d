"""Images in: files, the Real-ESRGAN degradation, and the Grain pipeline that feeds training.

    config = PipelineConfig(sources=("data/LSDIR", "data/ffhq_10k.txt"), resolution=512)
    for batch in to_device(make_pipeline(config), config):
        batch["lr"], batch["hr"]   # b h w 3 in [-1, 1]

The degradation in JAX is `omgsr_jax.data.degradation_jax.degrade_batch`; it is imported only where
it is used, so that worker processes on the host stay light.
"""

from .degradation import FolderSummary, degrade, degrade_folder
from .images import DamagedImageError, list_images, read_image, write_image
from .pipeline import (
    DamagedImageWarning,
    PipelineConfig,
    TooManyDamagedError,
    make_pipeline,
    to_device,
)
from .plan import MIXED, PRESETS, DegradationConfig, Plan, StageConfig, draw_plan, example_rng
from .sources import open_sources, pack

__all__ = [
    "MIXED",
    "PRESETS",
    "DamagedImageError",
    "DamagedImageWarning",
    "DegradationConfig",
    "FolderSummary",
    "PipelineConfig",
    "Plan",
    "StageConfig",
    "TooManyDamagedError",
    "degrade",
    "degrade_folder",
    "draw_plan",
    "example_rng",
    "list_images",
    "make_pipeline",
    "open_sources",
    "pack",
    "read_image",
    "to_device",
    "write_image",
]
