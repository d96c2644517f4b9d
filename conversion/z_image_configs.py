"""The config files of a Z-Image folder to our configs, and back; see `configs`."""

import math
from collections.abc import Mapping
from typing import Any

from omgsr_jax.descriptions import Json, build, checked, shown
from omgsr_jax.errors import InputError
from omgsr_jax.models.qwen3 import Qwen3Config
from omgsr_jax.models.z_image import ZImageConfig
from omgsr_jax.process import DDPM, FlowMatching

from .configs import account, check_fixed

# Our field: diffusers' field, and its default there.
_PLAIN: Mapping[str, tuple[str, Any]] = {
    "latent_channels": ("in_channels", 16),
    "hidden_size": ("dim", 3840),
    "num_layers": ("n_layers", 30),
    "num_refiner_layers": ("n_refiner_layers", 2),
    "num_attention_heads": ("n_heads", 30),
    "context_dim": ("cap_feat_dim", 2560),
    "norm_eps": ("norm_eps", 1e-5),
    "rope_theta": ("rope_theta", 256.0),
    "axes_dims": ("axes_dims", (32, 48, 48)),
}
_CALLED = {ours: theirs for ours, (theirs, _) in _PLAIN.items()}
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "all_patch_size": ([2],),
    "all_f_patch_size": ([1],),
    "qk_norm": (True,),
    "siglip_feat_dim": (None,),
    "t_scale": (1000.0,),
}
# How long diffusers' tables of angles are: here angles are computed.
_TABLES = {"axes_lens": [1536, 512, 512]}


def z_image_config(config: Json, where: str) -> ZImageConfig:
    account(config, (*_CALLED.values(), "n_kv_heads"), _FIXED, tuple(_TABLES), where)
    fields = {ours: config.get(theirs, default) for ours, (theirs, default) in _PLAIN.items()}
    heads = fields["num_attention_heads"]
    if config.get("n_kv_heads", heads) != heads:
        raise InputError(f"{where}: n_kv_heads must be n_heads, {shown(heads)}")
    return build(ZImageConfig, fields, where, called=_CALLED)


def z_image_json(config: ZImageConfig) -> Json:
    return {
        "_class_name": "ZImageTransformer2DModel",
        **{field: values[0] for field, values in _FIXED.items()},
        **_TABLES,
        **{theirs: getattr(config, ours) for ours, theirs in _CALLED.items()},
        "axes_dims": list(config.axes_dims),
        "n_kv_heads": config.num_attention_heads,
    }


_FLOW_FIXED: Mapping[str, tuple[Any, ...]] = {
    "use_dynamic_shifting": (False,),
    "invert_sigmas": (False,),
    "shift_terminal": (None,),
}
_SHIFT_DIGITS = 9  # an exponential of a logarithm is off by a little


def flow_matching(config: Json, where: str) -> FlowMatching:
    """The noise process of a scheduler_config.json. How to sample it in many steps is ignored.

    The schedule is shifted by the same at every size, which is a shift by tokens without a slope.
    """
    check_fixed(config, _FLOW_FIXED, where)
    shift = checked(float, config.get("shift", 1.0), where, "shift")
    if shift <= 0:
        raise InputError(f"{where}: shift is {shown(shift)}, expected more than 0")
    timesteps = config.get("num_train_timesteps", FlowMatching.timesteps)
    fields = {
        "timesteps": timesteps,
        "tokens": FlowMatching.tokens,
        "base_tokens": FlowMatching.base_tokens,
        "max_tokens": FlowMatching.max_tokens,
        "base_shift": math.log(shift),
        "max_shift": math.log(shift),
    }
    return build(FlowMatching, fields, where, called={"timesteps": "num_train_timesteps"})


def flow_matching_json(process: DDPM | FlowMatching) -> Json:
    if not isinstance(process, FlowMatching) or process.base_shift != process.max_shift:
        raise InputError("Z-Image has a flow matching process with the same shift at every size")
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        **{field: values[0] for field, values in _FLOW_FIXED.items()},
        "num_train_timesteps": process.timesteps,
        "shift": round(math.exp(process.base_shift), _SHIFT_DIGITS),
    }


_QWEN3_PLAIN: Mapping[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", 151936),
    "hidden_size": ("hidden_size", 4096),
    "intermediate_size": ("intermediate_size", 22016),
    "num_hidden_layers": ("num_hidden_layers", 32),
    "num_attention_heads": ("num_attention_heads", 32),
    "num_key_value_heads": ("num_key_value_heads", 32),
    "head_dim": ("head_dim", 128),
    "norm_eps": ("rms_norm_eps", 1e-6),
}
_QWEN3_CALLED = {ours: theirs for ours, (theirs, _) in _QWEN3_PLAIN.items()}
_QWEN3_FIXED: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("qwen3",),
    "attention_bias": (False,),
    "attention_dropout": (0, 0.0),
    "hidden_act": ("silu",),
    "rope_scaling": (None,),
    "sliding_window": (None,),
    "use_sliding_window": (False,),
}
_QWEN3_IGNORED = (
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "max_position_embeddings",
    "max_window_layers",
    "pad_token_id",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)
_ROPE = ("rope_theta", "rope_parameters")  # as transformers 4 and 5 write it
_ROPE_THETA = 10000.0


def qwen3_config(config: Json, where: str) -> Qwen3Config:
    used = (*_QWEN3_CALLED.values(), *_ROPE, "layer_types")
    account(config, used, _QWEN3_FIXED, _QWEN3_IGNORED, where)
    kinds = checked(tuple[str, ...], config.get("layer_types") or (), where, "layer_types")
    if {*kinds} - {"full_attention"}:
        raise InputError(f"{where}: layer_types must be full_attention, not {shown(kinds)}")
    fields = {ours: config.get(theirs, value) for ours, (theirs, value) in _QWEN3_PLAIN.items()}
    fields["rope_theta"] = _rope_theta(config, where)
    return build(Qwen3Config, fields, where, called=_QWEN3_CALLED)


def _rope_theta(config: Json, where: str) -> Any:
    theta, rope = (config.get(name) for name in _ROPE)
    if rope is None:
        return _ROPE_THETA if theta is None else theta
    kind = rope.get("rope_type", "default") if isinstance(rope, Mapping) else rope
    if kind != "default":
        raise InputError(f"{where}: rope_parameters must have rope_type default, not {shown(kind)}")
    return rope.get("rope_theta", _ROPE_THETA)
