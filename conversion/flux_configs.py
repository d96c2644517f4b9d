"""The config files of a FLUX folder to our configs, and back; see `configs`."""

from collections.abc import Mapping
from typing import Any

from omgsr_jax.descriptions import Json, build, shown
from omgsr_jax.errors import InputError
from omgsr_jax.models.flux import FluxConfig
from omgsr_jax.models.t5 import T5Config
from omgsr_jax.process import DDPM, FlowMatching

from .configs import account, check_fixed

_FLUX_PLAIN = {
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": False,
    "axes_dims_rope": (16, 56, 56),
}
_FLUX_FIXED: Mapping[str, tuple[Any, ...]] = {"patch_size": (1,)}
_FLUX_USED = (*_FLUX_PLAIN, "out_channels")


def flux_config(config: Json, where: str) -> FluxConfig:
    account(config, _FLUX_USED, _FLUX_FIXED, (), where)
    plain = {field: config.get(field, default) for field, default in _FLUX_PLAIN.items()}
    if config.get("out_channels") not in (None, plain["in_channels"]):
        raise InputError(
            f"{where}: out_channels must be in_channels, {shown(plain['in_channels'])}"
        )
    return build(FluxConfig, plain, where)


def flux_json(config: FluxConfig) -> Json:
    return {
        "_class_name": "FluxTransformer2DModel",
        **{field: values[0] for field, values in _FLUX_FIXED.items()},
        **{field: getattr(config, field) for field in _FLUX_PLAIN},
        "axes_dims_rope": list(config.axes_dims_rope),
    }


_FLOW_PLAIN = {
    "timesteps": ("num_train_timesteps", 1000),
    "base_tokens": ("base_image_seq_len", 256),
    "max_tokens": ("max_image_seq_len", 4096),
    "base_shift": ("base_shift", 0.5),
    "max_shift": ("max_shift", 1.15),
}
_FLOW_FIXED: Mapping[str, tuple[Any, ...]] = {
    "use_dynamic_shifting": (True,),
    "time_shift_type": ("exponential",),
    "invert_sigmas": (False,),
    "shift_terminal": (None,),
}


def flow_matching(config: Json, where: str) -> FlowMatching:
    """The noise process of a scheduler_config.json. How to sample it in many steps is ignored."""
    check_fixed(config, _FLOW_FIXED, where)
    fields = {ours: config.get(theirs, default) for ours, (theirs, default) in _FLOW_PLAIN.items()}
    called = {ours: theirs for ours, (theirs, _) in _FLOW_PLAIN.items()}
    return build(FlowMatching, {"tokens": FlowMatching.tokens, **fields}, where, called=called)


def flow_matching_json(process: DDPM | FlowMatching) -> Json:
    if not isinstance(process, FlowMatching):
        raise InputError("FLUX has a flow matching process")
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        **{field: values[0] for field, values in _FLOW_FIXED.items()},
        **{theirs: getattr(process, ours) for ours, (theirs, _) in _FLOW_PLAIN.items()},
    }


_T5_PLAIN = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
}
_T5_FIXED: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("t5",),
    "feed_forward_proj": ("gated-gelu",),
    "dense_act_fn": ("gelu_new",),
    "is_gated_act": (True,),
}
_T5_IGNORED = (
    "architectures",
    "bos_token_id",
    "classifier_dropout",
    "decoder_start_token_id",
    "dropout_rate",
    "dtype",
    "eos_token_id",
    "initializer_factor",
    "is_decoder",
    "is_encoder_decoder",
    "n_positions",
    "num_decoder_layers",
    "output_past",
    "pad_token_id",
    "scale_decoder_outputs",
    "task_specific_params",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)


def t5_config(config: Json, where: str) -> T5Config:
    account(config, tuple(_T5_PLAIN), _T5_FIXED, _T5_IGNORED, where)
    if "feed_forward_proj" not in config:
        raise InputError(f"{where} lacks feed_forward_proj; only gated-gelu is supported")
    fields = {field: config.get(field, value) for field, value in _T5_PLAIN.items()}
    return build(T5Config, fields, where)
