"""Tokenizers of very small vocabularies, in the real on-disk formats."""

import json
from pathlib import Path
from typing import Any


def write_clip(folder: Path) -> None:
    """A CLIP tokenizer whose vocabulary is the 256 bytes, alone and at the end of a word."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    _write_json(folder / "vocab.json", _numbered(tokens))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "!",  # as in Stable Diffusion 2.x
        },
    )


def write_t5(folder: Path, *, tokens: int = 24) -> None:
    """A T5 tokenizer whose vocabulary is a few special tokens and the printable characters."""
    from transformers import T5TokenizerFast

    letters = ["▁", *(chr(code) for code in range(33, 127))]
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((letter, -2.0) for letter in letters),
    ]
    T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=tokens).save_pretrained(folder)


# What Qwen3's own template does with one message of a user.
_CHAT = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% if enable_thinking is false %}<think>

</think>

{% endif %}
{%- endif -%}"""


def write_qwen2(folder: Path) -> None:
    """Qwen3's tokenizer, which is Qwen2's, for the 256 bytes."""
    from transformers import AddedToken, Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokenizer = Qwen2Tokenizer(vocab=_numbered(list(bytes_to_unicode().values())), merges=[])
    for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        tokenizer.add_tokens(AddedToken(token, special=True), special_tokens=True)
    tokenizer.chat_template = _CHAT
    tokenizer.save_pretrained(folder)


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens)}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
