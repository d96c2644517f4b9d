"""The restoring function as a file for JAX alone, with its weights and a README beside it.

    restore.jax          `jax.export`: StableHLO for every platform asked for
    weights.safetensors
    README.md            how to run it without omgsr-jax

The function takes the weights by name and a batch of images (b h w 3, uint8), and returns the
restored ones.
"""

import os
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, export, lax

from .. import files
from ..errors import InputError
from ..weights import weight_name
from .options import require_platforms
from .sizes import Size
from .upscaler import Upscaler

Restore = Callable[[Mapping[str, Array], Array], Array]

FUNCTION, WEIGHTS = "restore.jax", "weights.safetensors"

# Fused attention of CUDA's libraries: JAX does not promise to keep these for years, as it does for
# the rest of a file.
_CUDNN = ("__cudnn$fmhaSoftmax", "__cudnn$fmhaScaleBiasSoftmax")


def write(
    model: Upscaler,
    out: str | os.PathLike[str],
    *,
    size: Size,
    scale: float,
    platforms: Sequence[str],
    name: str,
) -> None:
    """Exports what `model` does to images of one size (height, width) to a new folder `out`."""
    require_platforms(platforms)
    save_file = _weights_writer()
    function = model.function(size, scale=scale)
    graph = dict(function.weights.flat_state())
    weights = {weight_name(path): leaf[...] for path, leaf in graph.items()}

    def restore(weights: Mapping[str, Array], images: Array) -> Array:
        state = {path: leaf.replace(weights[weight_name(path)]) for path, leaf in graph.items()}
        return function.apply(nnx.State.from_flat_path(state), images)

    exported = _exported(restore, weights, size, platforms)
    output = exported.out_avals[0].shape[1:3]
    with files.new_directory(out) as folder:
        (folder / FUNCTION).write_bytes(exported.serialize())
        save_file(weights, folder / WEIGHTS)
        text = _README.format(
            name=name,
            platforms=", ".join(platforms),
            width=size[1],
            height=size[0],
            out_width=output[1],
            out_height=output[0],
            function=FUNCTION,
            weights=WEIGHTS,
            jax=jax.__version__,
        )
        (folder / "README.md").write_text(text)


def _weights_writer() -> Callable[..., None]:
    """What writes safetensors. JAX wants flatbuffers to write functions, and says so too late."""
    try:
        import flatbuffers  # noqa: F401
        from safetensors.flax import save_file
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install 'omgsr-jax[export]'") from None
    return save_file


def _exported(
    restore: Restore, weights: Mapping[str, Array], size: Size, platforms: Sequence[str]
) -> export.Exported:
    """For any number of images, which are restored one after another: each as it is alone."""

    def one_by_one(weights: Mapping[str, Array], images: Array) -> Array:
        return lax.map(lambda image: restore(weights, image[None])[0], images)

    checks = [export.DisabledSafetyCheck.custom_call(name) for name in _CUDNN]
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}
    (count,) = export.symbolic_shape("images")
    make = export.export(jax.jit(one_by_one), platforms=platforms, disabled_checks=checks)
    return make(shapes, jax.ShapeDtypeStruct((count, *size, 3), jnp.uint8))


_README = """# {name}: {width} x {height} px to {out_width} x {out_height} px, by JAX alone

Written by omgsr-jax with JAX {jax}, for {platforms}. The weights' licence is that of the model.

```bash
pip install "jax>={jax}" flatbuffers safetensors pillow
```

`input.png` has {width} x {height} px. Any number of images can be given at once.

```python
import jax
import numpy as np
from PIL import Image
from safetensors.flax import load_file

with open("{function}", "rb") as file:
    restore = jax.jit(jax.export.deserialize(bytearray(file.read())).call)
image = np.asarray(Image.open("input.png").convert("RGB"))
restored = restore(load_file("{weights}"), image[None])
Image.fromarray(np.asarray(restored)[0]).save("output.png")
```
"""
