"""The settings of one stage."""

from dataclasses import dataclass, field

from ...data import DataConfig
from ..config import OptimizerConfig, RunConfig, ValidationConfig


@dataclass(frozen=True)
class PretrainConfig:
    """One of the stages. The decoder's and the prior's need a VAE that has been trained already."""

    name: str = "unnamed"
    seed: int = 0
    architecture: str = "nano"
    kl: float = 1e-6  # of the VAE's posterior
    edges: float = 1.0  # of the error in the differences between neighbouring pixels
    texture: float = 1.0  # in the decoder's stage
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    run: RunConfig = field(default_factory=RunConfig)
