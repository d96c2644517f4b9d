"""PyTorch state dicts to NNX states and back.

A module's path here is its path there, so a key differs only in its leaf:

| NNX leaf | PyTorch leaf | layout |
|---|---|---|
| `kernel` of a convolution | `weight` | OIHW -> HWIO |
| `kernel` of a linear layer | `weight` | OI -> IO |
| `scale`, `embedding` | `weight` | as it is |
| any other | the same name | as it is |

The layers of a stack (`models.stack`) have a key each, and one leaf together. What else differs
between versions of a checkpoint stands in `Spelling`. Conversion is total: every key must be used
and every leaf filled, and one error lists everything that does not match.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from flax import nnx

from omgsr_jax.errors import InputError
from omgsr_jax.models import stack
from omgsr_jax.storage import Pending
from omgsr_jax.weights import weight_name

from .tensor_files import Tensors, is_floating

_WEIGHTS = ("kernel", "scale", "embedding")
_LISTED = 20

Some = TypeVar("Some", Pending, np.ndarray)


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


QWEN3 = Spelling(
    # As saved with the layer that predicts the next token, or without it.
    rewrites=((r"^model\.", ""),),
    ignored=(r"lm_head\.weight",),
)
T5 = Spelling(
    # The token table is saved under either name, or both.
    rewrites=((r"^encoder\.embed_tokens\.", "shared."),),
)


def torch_keys(name: str, shape: tuple[int, ...]) -> list[str]:
    """The state-dict keys of a weight: one, or one per layer of a stack."""
    module, dot, leaf = name.rpartition(".")
    key = f"{module}{dot}{'weight' if leaf in _WEIGHTS else leaf}"
    if not _is_stacked(name):
        return [key]
    return [key.replace(f".{stack.EACH}.", f".{i}.") for i in range(shape[0])]


def _is_stacked(name: str) -> bool:
    return stack.EACH in name.split(".")


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
    """The tensors of a PyTorch checkpoint by the names of our weights; see `plan_state`."""
    planned = plan_state(tensors, abstract, spelling=spelling, headline=headline, dtype=dtype)
    return {name: weight.read() for name, weight in planned.items()}


def plan_state(
    tensors: Mapping[str, np.ndarray],
    abstract: nnx.State,
    *,
    spelling: Spelling,
    headline: str,
    dtype: np.dtype | None = None,
) -> dict[str, Pending]:
    """The tensors of a PyTorch checkpoint by the names of our weights, read when asked for.

    They are stored as `dtype`, or losslessly as they are: fp32 and bf16 stay, fp16 becomes fp32.
    """
    canonical = {spelling.canonical(key): key for key in tensors}
    wanted = {
        weight_name(path): (torch_keys(weight_name(path), leaf.shape), leaf.shape)
        for path, leaf in abstract.flat_state()
    }
    keys = {key for group, _ in wanted.values() for key in group}
    problems = {
        "missing": sorted(keys - set(canonical)),
        "not known here": sorted(
            canonical[key] for key in set(canonical) - keys if key is not None
        ),
        "of the wrong shape": [],
        "not of floating-point numbers": [],
    }
    planned: dict[str, Pending] = {}
    for name, (group, shape) in wanted.items():
        sources = [canonical[key] for key in group if key in canonical]
        one = shape[1:] if _is_stacked(name) else shape
        expected = to_torch(name, np.broadcast_to(False, one)).shape
        for source in sources:
            found = _shape(tensors, source)
            if found != expected:
                problems["of the wrong shape"].append(f"{source}: {found}, expected {expected}")
            if not is_floating(_dtype(tensors, source)):
                problems["not of floating-point numbers"].append(
                    f"{source}: {_dtype(tensors, source)}"
                )
        if not any(problems.values()):
            stored = dtype or _lossless(_dtype(tensors, sources[0]))
            read = partial(_read, tensors, sources, name, stored)
            planned[name] = Pending(shape, stored, read)
    _raise_if_any(problems, headline)
    return planned


def _read(
    tensors: Mapping[str, np.ndarray], sources: list[str], name: str, dtype: np.dtype
) -> np.ndarray:
    """One weight in our layout: a tensor, or those of a stack's layers on top of each other."""
    if not _is_stacked(name):
        return np.ascontiguousarray(to_jax(name, _weight(tensors, sources[0])).astype(dtype))
    first = to_jax(name, tensors[sources[0]])
    stacked = np.empty((len(sources), *first.shape), dtype)
    for i, source in enumerate(sources):
        stacked[i] = to_jax(name, _weight(tensors, source))
    return stacked


def torch_state(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `convert_state`: a PyTorch state dict."""
    state: dict[str, np.ndarray] = {}
    for name, array in params.items():
        layers = np.asarray(array) if _is_stacked(name) else np.asarray(array)[None]
        keys = torch_keys(name, layers.shape)
        state |= {key: to_torch(name, layer) for key, layer in zip(keys, layers, strict=True)}
    return state


def _weight(tensors: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    return tensors.weight(key) if isinstance(tensors, Tensors) else tensors[key]


def _shape(tensors: Mapping[str, np.ndarray], key: str) -> tuple[int, ...]:
    return tensors.shape(key) if isinstance(tensors, Tensors) else tensors[key].shape


def _dtype(tensors: Mapping[str, np.ndarray], key: str) -> np.dtype:
    return tensors.dtype(key) if isinstance(tensors, Tensors) else tensors[key].dtype


def _lossless(dtype: np.dtype) -> np.dtype:
    return np.dtype("float32") if dtype == np.float16 else dtype


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


def prefixed(prefix: str, params: Mapping[str, Some]) -> dict[str, Some]:
    """The weights of a part by their names in the whole."""
    return {f"{prefix}.{name}": array for name, array in params.items()}
