"""Prompt embeddings, computed once at conversion: the text encoders are not needed again."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from omgsr_jax.checkpoint import fill
from omgsr_jax.errors import InputError
from omgsr_jax.models.clip_text import CLIPTextEncoder

from .configs import clip_text_config
from .diffusers_folder import DiffusersFolder
from .keymap import CLIP_TEXT, convert_state
from .tensor_files import SafetensorsFile

# Written by `omgsr export` in place of the text encoder that a converted model no longer has.
EXPORTED = "prompt_embeds.safetensors"


def embed_prompt(base: DiffusersFolder, prompt: str) -> dict[str, np.ndarray]:
    """The prompt's embeddings by the backbone's keyword, without a batch axis."""
    exported = base.path / EXPORTED
    if exported.is_file() and not base.has("text_encoder"):
        return dict(SafetensorsFile(exported))
    return {"context": _clip_context(base, prompt)}  # n c


def _clip_context(base: DiffusersFolder, prompt: str) -> np.ndarray:
    where = base.path / "text_encoder"
    config = clip_text_config(base.config("text_encoder"), f"{where}/config.json")
    encoder = CLIPTextEncoder(config, rngs=None)
    params = convert_state(
        base.tensors("text_encoder", "model"),
        nnx.state(encoder),
        spelling=CLIP_TEXT,
        headline=f"the text encoder in {where} does not fit its config",
        dtype=np.dtype("float32"),
    )
    ids = _tokenize(base, prompt, config.max_position_embeddings)
    with jax.default_matmul_precision("highest"):
        tokens, _ = fill(encoder, params)(jnp.asarray(ids))
    return np.asarray(tokens[0])


def _tokenize(base: DiffusersFolder, prompt: str, length: int) -> np.ndarray:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise InputError(
            "reading the checkpoint's tokenizer needs `pip install omgsr-jax[convert]`"
        ) from None
    tokenizer = AutoTokenizer.from_pretrained(base.folder("tokenizer"))
    length = min(length, tokenizer.model_max_length)
    return tokenizer(
        prompt, max_length=length, padding="max_length", truncation=True, return_tensors="np"
    ).input_ids
