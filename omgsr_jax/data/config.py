"""What is read for training, and how it is degraded."""

from dataclasses import dataclass

from ..errors import InputError
from .plan import MIXED, PRESETS, AnyDegradation, DegradationConfig


@dataclass(frozen=True)
class DataConfig:
    """The settings `config.data` of a run."""

    sources: tuple[str, ...] = ()  # folders, .txt lists or ArrayRecord shards
    resolution: int = 512
    degradation: int | AnyDegradation = 512  # a published preset, or one of your own
    mixed: bool = False  # instead, light and published degradations mixed: see plan.MIXED
    flat: float = 0.0  # grey levels: crops of a lower deviation are cut anew, up to four times
    batch_size: int = 8  # of an optimiser step, on all devices of all processes together
    accumulation: int = 1  # micro-batches that a step's batch is divided into
    # host: OpenCV in the workers; device: batches carry plans, and the step carries them out
    degrade_on: str = "host"
    # Processes that read and degrade; None: as many as the step needs; 0: threads of this process.
    workers: int | None = None
    damaged_limit: float = 0.01  # a larger share of damaged images stops the run

    def __post_init__(self) -> None:
        if self.degrade_on not in ("host", "device"):
            raise InputError(f'data.degrade_on must be "host" or "device", not {self.degrade_on!r}')
        if self.workers is not None and self.workers < 0:
            raise InputError(f"data.workers is {self.workers}, expected 0 or more, or None")
        if isinstance(self.degradation, int) and self.degradation not in PRESETS:
            raise InputError(
                f"data.degradation is {self.degradation}, expected one of "
                f"{', '.join(map(str, PRESETS))}"
            )
        if self.mixed and self.degradation != 512:
            raise InputError(
                "data.mixed takes degradations of its own: leave data.degradation as it is"
            )
        if self.degrade_on == "device" and not isinstance(
            self.degradation_config, DegradationConfig
        ):
            raise InputError('only the published degradations run with data.degrade_on "device"')
        if self.resolution % self.degradation_config.scale:
            raise InputError(
                f"data.resolution {self.resolution} is not a multiple of the degradation's scale "
                f"{self.degradation_config.scale}"
            )

    @property
    def degradation_config(self) -> AnyDegradation:
        if self.mixed:
            return MIXED
        given = self.degradation
        return PRESETS[given] if isinstance(given, int) else given
