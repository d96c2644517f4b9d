"""PyTorch state dicts to NNX states and back.

A module's path here is its path there, so a key differs only in its leaf:

| NNX leaf | PyTorch leaf | layout |
|---|---|---|
| `kernel` of a convolution | `weight` | OIHW -> HWIO |
| `kernel` of a linear layer | `weight` | OI -> IO |
| `scale`, `embedding` | `weight` | as it is |
| any other | the same name | as it is |

What else differs between versions of a checkpoint stands in `Spelling`. Conversion is total: every
key must be used and every leaf filled, and one error lists everything that does not match.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flax import nnx

from omgsr_jax.checkpoint import weight_name
from omgsr_jax.errors import InputError

_WEIGHTS = ("kernel", "scale", "embedding")
_LISTED = 20


@dataclass(frozen=True)
class Spelling:
    """How one kind of checkpoint deviates: keys to rewrite, and keys that carry no weight."""

    rewrites: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()

    def canonical(self, key: str) -> str | None:
        """The key as it is spelled today; None if it carries no weight."""
        if any(re.fullmatch(pattern, key) for pattern in self.ignored):
            return None
        for pattern, replacement in self.rewrites:
            key = re.sub(pattern, replacement, key)
        return key


DIFFUSERS = Spelling()
VAE = Spelling(
    # Before diffusers 0.17 the VAE's attention named its projections differently.
    rewrites=tuple(
        (rf"(mid_block\.attentions\.\d+)\.{old}\.", rf"\1.{new}.")
        for old, new in {
            "query": "to_q",
            "key": "to_k",
            "value": "to_v",
            "proj_attn": "to_out.0",
        }.items()
    )
)
CLIP_TEXT = Spelling(
    # transformers 5 dropped the prefix; older versions also saved a buffer of indices.
    rewrites=((r"^text_model\.", ""),),
    ignored=(r"(text_model\.)?embeddings\.position_ids",),
)
TORCHVISION = Spelling(
    rewrites=((r"^features\.", "layers."),),
    ignored=(r"classifier\..*",),
)
DINOV2 = Spelling(
    # The original's names; transformers' are ours. The token for masked patches is for training.
    rewrites=(
        (r"^cls_token$", "embeddings.cls_token"),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
        (r"\.attn\.(query|key|value)\.", r".attention.attention.\1."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.ls(\d)\.gamma$", r".layer_scale\1.lambda1"),
        (r"^norm\.", "layernorm."),
    ),
    ignored=(r"(embeddings\.)?mask_token",),
)
DINOV3_CONVNEXT = Spelling(
    # The original's names; transformers' are ours. The last norm is behind the last feature map.
    rewrites=(
        (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample_layers."),
        (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.layers.\2."),
        (r"\.dwconv\.", ".depthwise_conv."),
        (r"\.norm\.", ".layer_norm."),
        (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    ),
    ignored=(r"(layer_)?norm\..*", r"norms\.3\..*"),
)


def torch_key(name: str) -> str:
    """The state-dict key of a weight."""
    module, dot, leaf = name.rpartition(".")
    return f"{module}{dot}{'weight' if leaf in _WEIGHTS else leaf}"


def to_jax(name: str, tensor: np.ndarray) -> np.ndarray:
    """A PyTorch tensor in the layout of the weight called `name` here."""
    if not name.endswith("kernel"):
        return tensor
    return tensor.T if tensor.ndim == 2 else tensor.transpose(2, 3, 1, 0)


def to_torch(name: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `to_jax`."""
    if not name.endswith("kernel"):
        return array
    return array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)


def convert_state(
    tensors: Mapping[str, np.ndarray],
    abstract: nnx.State,
    *,
    spelling: Spelling,
    headline: str,
    dtype: np.dtype | None = None,
) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch checkpoint by the names of our weights.

    Tensors are read one at a time and stored as `dtype`, or losslessly as they are: fp32 and bf16
    stay, fp16 becomes fp32.
    """
    canonical = {spelling.canonical(key): key for key in tensors}
    wanted = {
        torch_key(weight_name(path)): (weight_name(path), leaf.shape)
        for path, leaf in abstract.flat_state()
    }
    problems = {
        "missing": sorted(set(wanted) - set(canonical)),
        "not known here": sorted(
            canonical[key] for key in set(canonical) - set(wanted) if key is not None
        ),
    }
    converted: dict[str, np.ndarray] = {}
    misshapen: list[str] = []
    for key, (name, shape) in wanted.items():
        if key not in canonical:
            continue
        tensor = tensors[canonical[key]]
        expected = to_torch(name, np.empty(shape, bool)).shape
        if tensor.shape != expected:
            misshapen.append(f"{canonical[key]}: {tensor.shape}, expected {expected}")
        elif not any(problems.values()) and not misshapen:
            converted[name] = _stored(to_jax(name, tensor), dtype)
    problems["of the wrong shape"] = misshapen
    _raise_if_any(problems, headline)
    return converted


def torch_state(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `convert_state`: a PyTorch state dict."""
    return {torch_key(name): to_torch(name, np.asarray(array)) for name, array in params.items()}


def _stored(array: np.ndarray, dtype: np.dtype | None) -> np.ndarray:
    if dtype is None:
        dtype = np.dtype("float32") if array.dtype == np.float16 else array.dtype
    return np.ascontiguousarray(array.astype(dtype))


def _raise_if_any(problems: dict[str, list[str]], headline: str) -> None:
    if not any(problems.values()):
        return
    lines = [f"{headline}:"]
    for kind, keys in problems.items():
        if keys:
            lines.append(f"  {len(keys)} {'key' if len(keys) == 1 else 'keys'} {kind}:")
            lines += [f"    {key}" for key in keys[:_LISTED]]
            lines += [f"    ... and {len(keys) - _LISTED} more"] * (len(keys) > _LISTED)
    raise InputError("\n".join(lines))
