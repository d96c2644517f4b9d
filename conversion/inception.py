"""FID's Inception from the file that is published: the PyTorch port of TensorFlow's 2015 graph."""

from pathlib import Path

import numpy as np
from flax import nnx

from omgsr_jax.errors import InputError
from omgsr_jax.models.inception import Inception
from omgsr_jax.weights import fill

from .keymap import Spelling, convert_state
from .tensor_files import open_file

# Features do not need the classifier, nor training's step counters.
_SPELLING = Spelling(ignored=(r"fc\.(weight|bias)", r".*\.num_batches_tracked"))


def read_inception(path: str | Path, *, allow_pickle: bool = False) -> Inception:
    """The network in pt_inception-2015-12-05-6726825d.pth, or in its conversion to safetensors.

    Args:
        path: the file; mseitzer/pytorch-fid has it among its releases.
        allow_pickle: open a .pth with torch.load(weights_only=True).
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"FID's Inception weights: there is no file {path}")
    model = Inception(rngs=None)
    params = convert_state(
        open_file(path, allow_pickle=allow_pickle),
        nnx.state(model),
        spelling=_SPELLING,
        headline=f"{path} does not hold the weights of FID's Inception (pt_inception-2015-12-05)",
        dtype=np.dtype("float32"),
    )
    return fill(model, params)
