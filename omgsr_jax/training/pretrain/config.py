"""The settings of a base that is made from nothing."""

from dataclasses import dataclass, field

from ...data import DataConfig
from ..config import OptimizerConfig, RunConfig


@dataclass(frozen=True)
class PretrainConfig:
    """How the VAE is fitted and the prior is trained."""

    name: str = "unnamed"
    seed: int = 0
    architecture: str = "nano"
    whitening: float = 0.6  # of the VAE's components, see models.pixel_vae
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    run: RunConfig = field(default_factory=RunConfig)
