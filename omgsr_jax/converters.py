"""What converts PyTorch's files, wherever it is.

In a checkout `conversion` stands beside this package. The wheel has it inside, as
omgsr_jax.conversion, because a package of that name at the top would collide with anybody's.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING or find_spec(f"{__package__}.conversion") is None:
    from conversion.convert import convert, export
    from conversion.inception import read_inception
    from conversion.perceptual import convert_perceptual
else:
    from .conversion.convert import convert, export
    from .conversion.inception import read_inception
    from .conversion.perceptual import convert_perceptual

__all__ = ["convert", "convert_perceptual", "export", "read_inception"]
