"""Prompt embeddings, computed once at conversion: the text encoders are not needed again.

They are named by the backbone's keyword, and have no batch axis.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from omgsr_jax.descriptions import first_line
from omgsr_jax.errors import InputError
from omgsr_jax.models.clip_text import CLIPTextEncoder
from omgsr_jax.models.t5 import T5Encoder
from omgsr_jax.weights import fill, variables

from .configs import clip_text_config
from .diffusers_folder import TEXT_WEIGHTS, DiffusersFolder, tokenizer_of
from .flux_configs import t5_config
from .keymap import CLIP_TEXT, T5, convert_state, plan_state
from .tensor_files import SafetensorsFile, Tensors

# Written by `omgsr export` in place of the text encoders that a converted model no longer has.
EXPORTED = "prompt_embeds.safetensors"

_FLUX_TOKENS = 512


def are_exported(base: DiffusersFolder) -> bool:
    """Whether `omgsr export` wrote the folder."""
    return base.has(EXPORTED) and not base.has("text_encoder")


def exported(base: DiffusersFolder) -> dict[str, np.ndarray]:
    """The embeddings in a folder that `omgsr export` wrote."""
    tensors = Tensors([SafetensorsFile(base.used(EXPORTED))])
    return {name: tensors.weight(name) for name in tensors}


def for_sd(base: DiffusersFolder, prompt: str) -> dict[str, np.ndarray]:
    tokens, _ = _clip(base, prompt)
    return {"context": tokens}  # n c


def for_flux(base: DiffusersFolder, prompt: str) -> dict[str, np.ndarray]:
    _, pooled = _clip(base, prompt)
    return {"context": _t5(base, prompt), "pooled": pooled}  # n c, c


def _clip(base: DiffusersFolder, prompt: str) -> tuple[np.ndarray, np.ndarray]:
    where = base.path / "text_encoder"
    config = clip_text_config(base.config("text_encoder"), f"{where}/config.json")
    encoder = CLIPTextEncoder(config, rngs=None)
    params = convert_state(
        base.tensors("text_encoder", TEXT_WEIGHTS),
        nnx.state(encoder),
        spelling=CLIP_TEXT,
        headline=f"the text encoder in {where} does not fit its config",
        dtype=np.dtype("float32"),
    )
    ids = _tokenize(
        base,
        tokenizer_of("text_encoder"),
        prompt,
        length=config.max_position_embeddings,
        vocabulary=config.vocab_size,
    )
    with jax.default_matmul_precision("highest"):
        tokens, pooled = fill(encoder, params)(jnp.asarray(ids))
    return np.asarray(tokens[0]), np.asarray(pooled[0])


def _t5(base: DiffusersFolder, prompt: str) -> np.ndarray:
    """T5-XXL has 19 GB in fp32; a block's weights are read when its turn has come."""
    where = base.path / "text_encoder_2"
    config = t5_config(base.config("text_encoder_2"), f"{where}/config.json")
    encoder = T5Encoder(config, rngs=None)
    planned = plan_state(
        base.tensors("text_encoder_2", TEXT_WEIGHTS),
        nnx.state(encoder),
        spelling=T5,
        headline=f"the text encoder in {where} does not fit its config",
        dtype=np.dtype("float32"),
    )

    def fetch(path: str, part: nnx.Module) -> nnx.Module:
        return fill(part, {name: planned[f"{path}.{name}"].read() for name in variables(part)})

    tokenizer = tokenizer_of("text_encoder_2")
    ids = _tokenize(base, tokenizer, prompt, length=_FLUX_TOKENS, vocabulary=config.vocab_size)
    with jax.default_matmul_precision("highest"):
        return np.asarray(encoder(jnp.asarray(ids), fetch)[0])


def _tokenize(
    base: DiffusersFolder, part: str, prompt: str, *, length: int, vocabulary: int
) -> np.ndarray:  # 1 n
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise InputError(
            "reading the checkpoint's tokenizer needs `pip install omgsr-jax[convert]`"
        ) from None
    folder = base.folder(part)
    try:
        # Code that comes with a checkpoint is not run.
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        length = min(length, tokenizer.model_max_length)
        ids: np.ndarray = tokenizer(
            prompt, max_length=length, padding="max_length", truncation=True, return_tensors="np"
        ).input_ids
    except Exception as error:  # transformers reports a damaged file by nearly every type there is
        raise InputError(
            f"{folder} holds no tokenizer that can be read: {first_line(error)}"
        ) from error
    if ids.shape != (1, length) or not (ids.min() >= 0 and ids.max() < vocabulary):
        raise InputError(
            f"the tokenizer in {folder} does not fit the text encoder beside it: its tokens are "
            f"{ids.min()} to {ids.max()}, expected {length} of them below {vocabulary}"
        )
    return ids
