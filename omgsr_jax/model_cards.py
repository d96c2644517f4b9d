"""README.md of a model: for people, and in its first lines for the hub.

What a converted model says is in omgsr.json (`converted.ModelCard`); this is the same in words.
Importing this loads no JAX.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .converted import ModelCard

FILE = "README.md"
# Where a card names no others: see inference/colour.py and inference/restore.py.
COLOR, RESIZING = "adain", "omgsr"

_TAGS = ("super-resolution", "image-restoration", "one-step-diffusion", "omgsr")


@dataclass(frozen=True)
class Origin:
    """Where a model comes from; what is not known is empty.

    Attributes:
        recipe: that of the adapters, by its name.
        base: the hub id of the checkpoint.
        license, license_name, license_link: those of the base, as the hub's model cards say them.
        adapter_license, adapter_license_link: those of the adapters, if they have one.
    """

    recipe: str = ""
    base: str = ""
    license: str = ""
    license_name: str = ""
    license_link: str = ""
    adapter_license: str = ""
    adapter_license_link: str = ""

    @property
    def licenses(self) -> str:
        """Of the base, and of the adapters where they have one of their own."""
        base = self.license_name or self.license
        return f"{base} and {self.adapter_license}" if self.adapter_license else base


def whole_origin(content: Mapping[str, Any]) -> Any:
    """The origin that a description gives, with what an earlier version did not write of it."""
    origin = content.get("origin", {})
    return {**vars(Origin()), **origin} if isinstance(origin, Mapping) else origin


def of_converted(card: "ModelCard") -> str:
    """For a converted model: how this package runs it."""
    front = _front_matter(card, "omgsr-jax", ("jax", *_TAGS))
    return _page(card, front, "A converted model of omgsr-jax.", _RUN_CONVERTED)


def of_exported(
    card: "ModelCard", pipeline: str, absent: Sequence[str], lora: Mapping[str, str]
) -> str:
    """For an export: how diffusers and peft load it.

    Args:
        card: of the model that was exported.
        pipeline: the class of diffusers that has its components.
        absent: which of these the export does not have.
        lora: the folder of each adapter, by the module that it belongs to.
    """
    adapted = "".join(
        f'{module} = PeftModel.from_pretrained({module}, f"{{folder}}/{name}")\n'
        for module, name in lora.items()
    )
    without = "".join(f", {name}=None" for name in absent)
    run = _RUN_EXPORTED.format(pipeline=pipeline, without=without, adapted=adapted)
    front = _front_matter(card, "diffusers", ("diffusers", "lora", *_TAGS))
    return _page(card, front, "Written by omgsr-jax in the layout of diffusers and peft.", run)


def _page(card: "ModelCard", front: str, what: str, run: str) -> str:
    return _FRAME.format(
        front=front,
        title=card.origin.recipe or "OMGSR",
        what=what,
        table=_table(card),
        run=run,
        license=_license(card),
        sources=_sources(card),
    )


def _front_matter(card: "ModelCard", library: str, tags: Sequence[str]) -> str:
    origin = card.origin
    of_its_own = bool(origin.adapter_license)
    rows = {
        "license": "other" if of_its_own else origin.license or "other",
        "license_name": origin.licenses if of_its_own else origin.license_name,
        "license_link": origin.adapter_license_link or origin.license_link,
        "base_model": origin.base,
        "pipeline_tag": "image-to-image",
        "library_name": library,
    }
    lines = [f"{name}: {_cell(value)}" for name, value in rows.items() if value]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _table(card: "ModelCard") -> str:
    generator = card.generator
    encoder, backbone = generator.encoder_lora, generator.backbone_lora
    rows = {
        "recipe": card.origin.recipe or "none that was published",
        "base": card.origin.base or "not on the hub",
        "mid-timestep t_m": "adaptive" if generator.adaptive else generator.mid_timestep,
        "process size": f"{card.process_size} px",
        "prompt": f'"{_cell(card.prompt)}"',
        "adapter of the encoder": f"rank {encoder.rank}" if encoder else "none",
        "adapter of the backbone": f"rank {backbone.rank}" if backbone else "none",
    }
    return _rows("", "", rows)


def _license(card: "ModelCard") -> str:
    origin = card.origin
    name = origin.license_name or origin.license
    if not name:
        return "That of the base, and of the adapters."
    link = f" ({origin.license_link})" if origin.license_link else ""
    text = f"That of the base: {name}{link}."
    if origin.recipe and card.generator.backbone_lora:
        text += f" {_adapters_license(origin)}"
    return text


def _adapters_license(origin: Origin) -> str:
    if not origin.adapter_license:
        return "The adapters were published without a licence: do not pass this model on."
    return f"That of the adapters: {origin.adapter_license} ({origin.adapter_license_link})."


def _sources(card: "ModelCard") -> str:
    if not card.sources:
        return "Nothing is known about the files that it was made of."
    rows = {f"`{_cell(name)}`": f"`{_cell(digest)}`" for name, digest in card.sources.items()}
    return _rows("file", "sha256", rows)


def _rows(left: str, right: str, rows: Mapping[str, object]) -> str:
    head: list[tuple[str, object]] = [(left, right), ("---", "---")]
    return "\n".join(f"| {a} | {b} |" for a, b in [*head, *rows.items()])


def _cell(text: str) -> str:
    """A text that may hold anything, in a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")


_FRAME = """{front}

# {title}

{what} It restores and enlarges photographs in one diffusion step, as
[OMGSR](https://github.com/wuer5/OMGSR) and its relatives do.

{table}

## How to run it

{run}
## Licence

{license}

## What it was made of

{sources}
"""

_RUN_CONVERTED = """```bash
pip install "omgsr-jax[hub]"
omgsr upscale photo.jpg -o large.png --model MODEL
```

MODEL is this folder, or its name on the hub (`user/name`, or `user/name@revision`).
"""

_RUN_EXPORTED = """Convert it back with `omgsr convert --base FOLDER --adapter FOLDER --out MODEL`,
or load its parts with diffusers and peft. There is no text encoder: `prompt_embeds.safetensors`
holds the embeddings of the prompt.

```python
from diffusers import {pipeline}
from peft import PeftModel

folder = "."
pipe = {pipeline}.from_pretrained(folder{without})
{adapted}```

The pipeline's own sampling is not OMGSR: encode the enlarged image, predict once at t_m, decode.
"""
