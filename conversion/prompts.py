"""Prompt embeddings, computed once at conversion: the text encoders are not needed again.

They are named by the backbone's keyword, and have no batch axis.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from omgsr_jax.descriptions import first_line
from omgsr_jax.errors import InputError
from omgsr_jax.models.clip_text import CLIPTextEncoder
from omgsr_jax.models.qwen3 import Qwen3Encoder
from omgsr_jax.models.t5 import T5Encoder
from omgsr_jax.weights import fill, variables

from .configs import clip_text_config
from .diffusers_folder import TEXT_WEIGHTS, DiffusersFolder, tokenizer_of
from .flux_configs import t5_config
from .keymap import CLIP_TEXT, QWEN3, T5, Spelling, convert_state, plan_state
from .tensor_files import SafetensorsFile, Tensors
from .z_image_configs import qwen3_config

# Written by `omgsr export` in place of the text encoders that a converted model no longer has.
EXPORTED = "prompt_embeds.safetensors"

_FLUX_TOKENS = _Z_IMAGE_TOKENS = 512


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


def for_z_image(base: DiffusersFolder, prompt: str) -> dict[str, np.ndarray]:
    """Of the prompt as a user's message to a model that is about to answer, without padding."""
    config = qwen3_config(base.config("text_encoder"), f"{base.path}/text_encoder/config.json")

    def ids(tokenizer: Any) -> np.ndarray:
        message = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        return _ids(tokenizer, text, _Z_IMAGE_TOKENS)

    found = _tokenize(base, tokenizer_of("text_encoder"), ids, vocabulary=config.vocab_size)
    encoder = Qwen3Encoder(config, rngs=None)
    return {"context": _block_by_block(base, "text_encoder", encoder, QWEN3, found)}  # n c


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
    part, length = tokenizer_of("text_encoder"), config.max_position_embeddings
    ids = _padded(base, part, prompt, length=length, vocabulary=config.vocab_size)
    with jax.default_matmul_precision("highest"):
        tokens, pooled = fill(encoder, params)(jnp.asarray(ids))
    return np.asarray(tokens[0]), np.asarray(pooled[0])


def _t5(base: DiffusersFolder, prompt: str) -> np.ndarray:
    where = f"{base.path}/text_encoder_2/config.json"
    config = t5_config(base.config("text_encoder_2"), where)
    part = tokenizer_of("text_encoder_2")
    ids = _padded(base, part, prompt, length=_FLUX_TOKENS, vocabulary=config.vocab_size)
    return _block_by_block(base, "text_encoder_2", T5Encoder(config, rngs=None), T5, ids)


def _block_by_block(
    base: DiffusersFolder, part: str, encoder: Any, spelling: Spelling, ids: np.ndarray
) -> np.ndarray:
    """Embeddings by an encoder whose blocks' weights are read when their turn has come.

    In fp32, in which they are not stored, T5-XXL has 19 GB and Qwen3-4B 16.
    """
    planned = plan_state(
        base.tensors(part, TEXT_WEIGHTS),
        nnx.state(encoder),
        spelling=spelling,
        headline=f"the text encoder in {base.path / part} does not fit its config",
        dtype=np.dtype("float32"),
    )

    def fetch(path: str, part: nnx.Module) -> nnx.Module:
        return fill(part, {name: planned[f"{path}.{name}"].read() for name in variables(part)})

    with jax.default_matmul_precision("highest"):
        return np.asarray(encoder(jnp.asarray(ids), fetch)[0])


def _padded(
    base: DiffusersFolder, part: str, prompt: str, *, length: int, vocabulary: int
) -> np.ndarray:  # 1 n
    """As many tokens as the encoder, or its tokenizer, takes."""

    def ids(tokenizer: Any) -> np.ndarray:
        tokens = min(length, tokenizer.model_max_length)
        found = _ids(tokenizer, prompt, tokens, padding="max_length")
        if found.shape != (1, tokens):
            raise ValueError(f"asked for {tokens} tokens, it gives {found.shape[-1]}")
        return found

    return _tokenize(base, part, ids, vocabulary=vocabulary)


def _ids(tokenizer: Any, text: str, length: int, **how: Any) -> np.ndarray:
    ids: np.ndarray = tokenizer(
        text, max_length=length, truncation=True, return_tensors="np", **how
    ).input_ids
    return ids


def _tokenize(
    base: DiffusersFolder, part: str, ids: Callable[[Any], np.ndarray], *, vocabulary: int
) -> np.ndarray:  # 1 n
    """What `ids` makes with the checkpoint's tokenizer."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise InputError(
            "reading the checkpoint's tokenizer needs `pip install omgsr-jax[convert]`"
        ) from None
    folder = base.folder(part)
    try:
        # Code that comes with a checkpoint is not run.
        found = ids(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    except Exception as error:  # transformers reports a damaged file by nearly every type there is
        raise InputError(
            f"{folder} holds no tokenizer that can be read: {first_line(error)}"
        ) from error
    if not found.size or not (found.min() >= 0 and found.max() < vocabulary):
        told = f"are {found.min()} to {found.max()}" if found.size else "are none"
        raise InputError(
            f"the tokenizer in {folder} does not fit the text encoder beside it: its tokens "
            f"{told}, expected numbers below {vocabulary}"
        )
    return found
