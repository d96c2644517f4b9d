"""OMGSR in JAX: one-step real-world image super-resolution from a mid-timestep.

model = omgsr_jax.load("path/to/a/converted/model")
image = model.upscale("photo.jpg", scale=4)
"""

from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from .inference.loading import load
    from .inference.upscaler import Upscaler

__version__ = "0.2.0"
__all__ = ["InputError", "Upscaler", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Imports what needs JAX when it is first used."""
    if name in ("Upscaler", "load"):
        from .inference import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
