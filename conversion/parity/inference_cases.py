"""What inference is timed on, and who takes part; known without JAX and PyTorch."""

from dataclasses import dataclass
from pathlib import Path

OURS = "ours"
SCALE = 4
STAGES = ("encode", "predict", "decode")


@dataclass(frozen=True)
class Form:
    """How PyTorch runs."""

    channels_last: bool = False
    compiled: str | None = None  # the mode of torch.compile


# In the order in which they run on a GPU: the slowest to compile is the last.
TORCH = {
    "eager": Form(),
    "channels-last": Form(channels_last=True),
    "compile": Form(channels_last=True, compiled="default"),
    "reduce-overhead": Form(channels_last=True, compiled="reduce-overhead"),
    "max-autotune": Form(channels_last=True, compiled="max-autotune"),
}
PEERS = (OURS, *TORCH)


@dataclass(frozen=True)
class Weights:
    """One model, as diffusers and peft have it, and converted."""

    base: Path
    adapter: Path | None
    model: Path


@dataclass(frozen=True)
class Case:
    precision: str
    pixels: int
    batch: int
