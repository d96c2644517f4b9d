"""Nodes for ComfyUI: one loads a model and keeps it, one upscales images with it.

ComfyUI finds them through scripts/comfyui, a folder for its custom_nodes (docs/serving.md). JAX is
imported when a model is loaded, so that ComfyUI starts as fast as before.
"""

import functools
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import assets
from ..inference.options import COLORS, INFERENCE_PRECISIONS, Options
from ..inference.sizes import DEFAULT_SCALE, LARGEST_SCALE, Enlargement

if TYPE_CHECKING:
    from ..inference.progress import OnProgress
    from ..inference.upscaler import Upscaler

_KIND = "OMGSR_MODEL"
_USUAL = "as the model does"
_MODE = -1  # the seed that means none
_LARGEST_SEED = 2**63 - 1
_CATEGORY = "image/upscaling"


class OMGSRLoad:
    """A model, which stays loaded while another prompt is run with it."""

    RETURN_TYPES = (_KIND,)
    FUNCTION = "load"
    CATEGORY = _CATEGORY
    DESCRIPTION = "Loads an OMGSR model: nano, or the folder of a converted one."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        strips = ["auto", "off", "64", "128", "256", "512"]
        return {
            "required": {
                "model": ("STRING", {"default": assets.NANO, "tooltip": "nano, or a folder"}),
                "precision": (["auto", *INFERENCE_PRECISIONS],),
                "strips": (strips, {"tooltip": "rows in which the VAE works, to save memory"}),
            }
        }

    def load(self, model: str, precision: str, strips: str) -> tuple["Upscaler"]:
        return (_loaded(model, precision, strips),)


class OMGSRUpscale:
    """Images, restored and enlarged."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = _CATEGORY
    DESCRIPTION = "Restores and enlarges images in one step."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        scale = {"default": DEFAULT_SCALE, "min": 1.0, "max": LARGEST_SCALE, "step": 0.05}
        seed = {
            "default": _MODE,
            "min": _MODE,
            "max": _LARGEST_SEED,
            "control_after_generate": False,
            "tooltip": "-1: none, and results repeat. Else the VAE's posterior is sampled with it.",
        }
        return {
            "required": {
                "model": (_KIND,),
                "image": ("IMAGE",),
                "scale": ("FLOAT", scale),
                "color": ([_USUAL, *COLORS],),
                "seed": ("INT", seed),
            }
        }

    def upscale(
        self, model: "Upscaler", image: Any, scale: float, color: str, seed: int
    ) -> tuple[Any]:
        """`image` is a tensor, b h w c, of float32 in [0, 1]; so is the result."""
        import numpy as np
        import torch

        from ..inference.pictures import from_array

        options = Options(
            Enlargement(scale=scale),
            None if color == _USUAL else color,
            None if seed == _MODE else seed,
        )
        given = np.clip(image.cpu().float().numpy(), 0, 1)  # b h w c
        sources = [_in_full_depth(from_array(one)) for one in given]
        results = [done.picture for done in model.restore(sources, options, _bar())]
        larger = [
            picture.rgb if picture.alpha is None else np.dstack([picture.rgb, picture.alpha])
            for picture in results
        ]
        return (torch.from_numpy(np.stack(larger)),)


@functools.lru_cache(maxsize=1)
def _loaded(model: str, precision: str, strips: str) -> "Upscaler":
    # JAX would take most of the GPU's memory at once, and ComfyUI needs it as well.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from ..inference.loading import load

    return load(
        model,
        precision=None if precision == "auto" else precision,
        strips=int(strips) if strips.isdigit() else strips,
    )


def _in_full_depth(picture: Any) -> Any:
    """The result is not rounded to the 8 bits of a file."""
    return replace(picture, bits=16)


def _bar() -> "OnProgress | None":
    """ComfyUI's progress bar, which also ends the work when a user interrupts it."""
    try:
        from comfy.utils import ProgressBar
    except ImportError:
        return None
    bar = ProgressBar(100)
    return lambda progress: bar.update_absolute(round(100 * progress.share), 100)


NODE_CLASS_MAPPINGS = {"OMGSRLoad": OMGSRLoad, "OMGSRUpscale": OMGSRUpscale}
NODE_DISPLAY_NAME_MAPPINGS = {"OMGSRLoad": "Load OMGSR Model", "OMGSRUpscale": "Upscale (OMGSR)"}
