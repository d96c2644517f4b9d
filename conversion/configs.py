"""config.json files of diffusers and transformers to our configs, and back.

Each reader accounts for every field: those it uses, those that may only have the value that is
implemented, and those that say nothing about the network. Anything else is an error that names
the field.
"""

from collections.abc import Mapping
from typing import Any

from omgsr_jax.descriptions import Json, build, checked, several, shown
from omgsr_jax.errors import InputError
from omgsr_jax.models.clip_text import CLIPTextConfig
from omgsr_jax.models.dinov2 import DINOv2Config
from omgsr_jax.models.dinov3_convnext import DINOv3ConvNeXtConfig
from omgsr_jax.models.unet import UNetConfig
from omgsr_jax.models.vae import VAEConfig
from omgsr_jax.process import DDPM, FlowMatching, Residual

_UNET_DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
_UNET_UP = {True: "CrossAttnUpBlock2D", False: "UpBlock2D"}

_UNET_CALLED = {
    # The field is misnamed in diffusers: it holds the number of heads.
    "heads": "attention_head_dim",
    "transformer_depth": "transformer_layers_per_block",
    "linear_projection": "use_linear_projection",
    "attention": "down_block_types",
}

_UNET_FIXED: Mapping[str, tuple[Any, ...]] = {
    "act_fn": ("silu",),
    "addition_embed_type": (None,),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dropout": (0, 0.0),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
# upcast_attention is about fp16 softmax; softmax is always fp32 here.
_UNET_IGNORED = (
    "sample_size",
    "upcast_attention",
    "addition_embed_type_num_heads",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
)
_UNET_USED = (
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "down_block_types",
    "up_block_types",
    "attention_head_dim",
    "transformer_layers_per_block",
    "cross_attention_dim",
    "use_linear_projection",
    "norm_num_groups",
    "norm_eps",
    "flip_sin_to_cos",
    "freq_shift",
)


def unet_config(config: Json, where: str) -> UNetConfig:
    account(config, _UNET_USED, _UNET_FIXED, _UNET_IGNORED, where)
    down = listed(config, "down_block_types", where)
    unknown = sorted({*down} - {*_UNET_DOWN})
    if unknown:
        raise InputError(f"{where}: down_block_types {several(unknown)} are not supported")
    attention = tuple(_UNET_DOWN[name] for name in down)
    expected = tuple(_UNET_UP[attends] for attends in attention[::-1])
    if listed(config, "up_block_types", where) != expected:
        raise InputError(f"{where}: up_block_types must mirror down_block_types: {shown(expected)}")
    fields = {
        "in_channels": config.get("in_channels", 4),
        "out_channels": config.get("out_channels", 4),
        "block_out_channels": need(config, "block_out_channels", where),
        "layers_per_block": config.get("layers_per_block", 2),
        "attention": attention,
        "heads": _per_block(config.get("attention_head_dim", 8), down),
        "transformer_depth": _per_block(config.get("transformer_layers_per_block", 1), down),
        "cross_attention_dim": need(config, "cross_attention_dim", where),
        "linear_projection": config.get("use_linear_projection", False),
        "norm_num_groups": config.get("norm_num_groups", 32),
        "norm_eps": config.get("norm_eps", 1e-5),
        "flip_sin_to_cos": config.get("flip_sin_to_cos", True),
        "freq_shift": config.get("freq_shift", 0),
    }
    return build(UNetConfig, fields, where, called=_UNET_CALLED)


def unet_json(config: UNetConfig) -> Json:
    down = {attends: name for name, attends in _UNET_DOWN.items()}
    return {
        "_class_name": "UNet2DConditionModel",
        **{field: values[0] for field, values in _UNET_FIXED.items()},
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": list(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "down_block_types": [down[attends] for attends in config.attention],
        "up_block_types": [_UNET_UP[attends] for attends in config.attention[::-1]],
        "attention_head_dim": list(config.heads),
        "transformer_layers_per_block": list(config.transformer_depth),
        "cross_attention_dim": config.cross_attention_dim,
        "use_linear_projection": config.linear_projection,
        "norm_num_groups": config.norm_num_groups,
        "norm_eps": config.norm_eps,
        "flip_sin_to_cos": config.flip_sin_to_cos,
        "freq_shift": config.freq_shift,
    }


_VAE_FIXED: Mapping[str, tuple[Any, ...]] = {
    "act_fn": ("silu",),
    "latents_mean": (None,),
    "latents_std": (None,),
}
_VAE_IGNORED = ("sample_size", "force_upcast")
_VAE_PLAIN = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
_VAE_USED = (
    *_VAE_PLAIN,
    "block_out_channels",
    "down_block_types",
    "up_block_types",
    "shift_factor",
)


def vae_config(config: Json, where: str) -> VAEConfig:
    account(config, _VAE_USED, _VAE_FIXED, _VAE_IGNORED, where)
    widths = checked(
        tuple[int, ...],
        need(config, "block_out_channels", where),
        where,
        "block_out_channels",
    )
    for field, kind in (
        ("down_block_types", "DownEncoderBlock2D"),
        ("up_block_types", "UpDecoderBlock2D"),
    ):
        if listed(config, field, where) != (kind,) * len(widths):
            raise InputError(f"{where}: {field} must be {kind} at all {len(widths)} levels")
    plain = {field: config.get(field, default) for field, default in _VAE_PLAIN.items()}
    shift = 0.0 if config.get("shift_factor") is None else config["shift_factor"]
    return build(VAEConfig, {"block_out_channels": widths, "shift_factor": shift, **plain}, where)


def vae_json(config: VAEConfig) -> Json:
    levels = len(config.block_out_channels)
    return {
        "_class_name": "AutoencoderKL",
        **{field: values[0] for field, values in _VAE_FIXED.items()},
        **{field: getattr(config, field) for field in _VAE_PLAIN},
        "block_out_channels": list(config.block_out_channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "shift_factor": config.shift_factor or None,
    }


_CLIP_USED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "eos_token_id",
)
_CLIP_FIXED: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("clip_text_model",),
    "attention_dropout": (0, 0.0),
    "dropout": (0, 0.0),
}
_CLIP_IGNORED = (
    "architectures",
    "bos_token_id",
    "dtype",
    "initializer_factor",
    "initializer_range",
    "pad_token_id",
    "projection_dim",
    "torch_dtype",
    "transformers_version",
)


def clip_text_config(config: Json, where: str) -> CLIPTextConfig:
    account(config, _CLIP_USED, _CLIP_FIXED, _CLIP_IGNORED, where)
    defaults = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": 49407}
    fields = {name: value for name, value in config.items() if name in _CLIP_USED}
    return build(CLIPTextConfig, defaults | fields, where)


_DINOV2_PLAIN = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "patch_size": 14,
    "image_size": 224,
}
_DINOV2_FIXED: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("dinov2",),
    "num_channels": (3,),
    "use_swiglu_ffn": (False,),
}
_TRANSFORMERS_IGNORED = (
    "architectures",
    "drop_path_rate",
    "dtype",
    "initializer_range",
    "out_features",
    "out_indices",
    "stage_names",
    "torch_dtype",
    "transformers_version",
)
_DINOV2_IGNORED = (
    *_TRANSFORMERS_IGNORED,
    "apply_layernorm",
    "attention_probs_dropout_prob",
    "hidden_dropout_prob",
    "layerscale_value",
    "reshape_hidden_states",
    "use_mask_token",
)


def dinov2_config(config: Json, where: str) -> DINOv2Config:
    account(config, tuple(_DINOV2_PLAIN), _DINOV2_FIXED, _DINOV2_IGNORED, where)
    plain = {field: config.get(field, default) for field, default in _DINOV2_PLAIN.items()}
    fixed = {"interpolate_offset": 0.0, "mean": DINOv2Config.mean}
    return build(DINOv2Config, fixed | plain, where)


_CONVNEXT_USED = ("hidden_sizes", "depths", "hidden_act", "layer_norm_eps")
_CONVNEXT_FIXED: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("dinov3_convnext",),
    "num_channels": (3,),
}
_CONVNEXT_IGNORED = (*_TRANSFORMERS_IGNORED, "image_size", "layer_scale_init_value")


def dinov3_convnext_config(config: Json, where: str) -> DINOv3ConvNeXtConfig:
    account(config, _CONVNEXT_USED, _CONVNEXT_FIXED, _CONVNEXT_IGNORED, where)
    fields = {
        "hidden_sizes": need(config, "hidden_sizes", where),
        "depths": need(config, "depths", where),
        "hidden_act": config.get("hidden_act", "gelu"),
        "layer_norm_eps": config.get("layer_norm_eps", 1e-6),
    }
    return build(DINOv3ConvNeXtConfig, fields, where)


_DDPM_FIXED: Mapping[str, tuple[Any, ...]] = {
    "beta_schedule": ("scaled_linear",),
    "prediction_type": ("epsilon",),
    "trained_betas": (None,),
    "rescale_betas_zero_snr": (False,),
}


def ddpm(config: Json, where: str) -> DDPM:
    """The noise process of a scheduler_config.json. How to sample it in many steps is ignored."""
    check_fixed(config, _DDPM_FIXED, where)
    fields = {
        "beta_start": need(config, "beta_start", where),
        "beta_end": need(config, "beta_end", where),
        "timesteps": config.get("num_train_timesteps", 1000),
    }
    return build(DDPM, fields, where, called={"timesteps": "num_train_timesteps"})


def residual(process: DDPM) -> Residual:
    """A base's process for a network that was trained to predict what is to be taken away."""
    return Residual(**vars(process))


def scheduler_json(process: DDPM | FlowMatching) -> Json:
    if not isinstance(process, DDPM):
        raise InputError("only DDPM processes have a diffusers scheduler config here")
    return {
        "_class_name": "DDPMScheduler",
        **{field: values[0] for field, values in _DDPM_FIXED.items()},
        "beta_start": process.beta_start,
        "beta_end": process.beta_end,
        "num_train_timesteps": process.timesteps,
    }


def account(
    config: Json,
    used: tuple[str, ...],
    fixed: Mapping[str, tuple[Any, ...]],
    ignored: tuple[str, ...],
    where: str,
) -> None:
    unknown = sorted(
        field
        for field in config
        if field not in used
        and field not in fixed
        and field not in ignored
        and not field.startswith("_")
    )
    if unknown:
        raise InputError(f"{where} has fields that are not known here: {several(unknown)}")
    check_fixed(config, fixed, where)


def check_fixed(config: Json, fixed: Mapping[str, tuple[Any, ...]], where: str) -> None:
    wrong = [
        f"{field} = {shown(config[field])} (only {values[0]!r})"
        for field, values in fixed.items()
        if field in config and config[field] not in values
    ]
    if wrong:
        raise InputError(f"{where} asks for what is not supported: {several(wrong)}")


def need(config: Json, field: str, where: str) -> Any:
    if field not in config:
        raise InputError(f"{where} lacks {field}")
    return config[field]


def listed(config: Json, field: str, where: str) -> tuple[str, ...]:
    """A field that holds names."""
    found: tuple[str, ...] = checked(tuple[str, ...], need(config, field, where), where, field)
    return found


def _per_block(value: Any, blocks: tuple[str, ...]) -> Any:
    """One value for all blocks, or one for each."""
    return value if isinstance(value, list) else [value] * len(blocks)
