"""What converts PyTorch's files, wherever it is. A name is imported when it is first used.

In a checkout `conversion` stands beside this package. The wheel has it inside, as
omgsr_jax.conversion, because a package of that name at the top would collide with anybody's.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conversion import recipes
    from conversion.convert import convert
    from conversion.export import export
    from conversion.inception import read_inception
    from conversion.perceptual import convert_perceptual

__all__ = ["convert", "convert_perceptual", "export", "read_inception", "recipes"]

_MODULES = {"convert_perceptual": "perceptual", "read_inception": "inception"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    inside = f"{__package__}.conversion"
    package = inside if find_spec(inside) else "conversion"
    module = import_module(f"{package}.{_MODULES.get(name, name)}")
    return getattr(module, name, module)
