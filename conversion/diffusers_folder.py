"""Diffusers folders: one sub-folder per component, each a config and its weights."""

import hashlib
from pathlib import Path

from omgsr_jax.descriptions import Json, read_json
from omgsr_jax.errors import InputError

from .tensor_files import Tensors, open_tensors

_HUB_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors"]
_PARTS = ("unet", "transformer", "vae")
_WEIGHTS = "diffusion_pytorch_model"


class DiffusersFolder:
    """A diffusers checkpoint: a local folder, or a hub id that is fetched into the hub's cache."""

    def __init__(self, base: str, *, allow_pickle: bool = False):
        self.path = _resolve(base)
        self.allow_pickle = allow_pickle
        self.sources: dict[str, str] = {}
        if not any((self.path / part / "config.json").is_file() for part in _PARTS):
            raise InputError(
                f"{self.path} is not a diffusers model: expected sub-folders such as "
                f"{', '.join(f'{part}/' for part in _PARTS)}, each with a config.json"
            )

    def config(self, part: str, name: str = "config.json") -> Json:
        return read_json(self.used(self.path / part / name))

    def has(self, part: str) -> bool:
        return (self.path / part).is_dir()

    def folder(self, part: str) -> Path:
        """A component that another library reads as a whole, such as the tokenizer."""
        if not self.has(part):
            raise InputError(f"{self.path} has no {part}/")
        for path in sorted((self.path / part).iterdir()):
            self.used(path)
        return self.path / part

    def tensors(self, part: str, stem: str = _WEIGHTS) -> Tensors:
        """The weights of a component, by their PyTorch keys."""
        tensors = open_tensors(self.path / part, stem, allow_pickle=self.allow_pickle)
        for file in tensors.files:
            self.used(file.path)
        return tensors

    def used(self, path: Path) -> Path:
        """`path`, which is among the sources from now on."""
        if path.is_file():
            self.sources[str(path.relative_to(self.path))] = sha256(path)
        return path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _resolve(base: str) -> Path:
    path = Path(base).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{base} is a file; expected a diffusers folder or a hub id")
    if base.count("/") != 1 or base.startswith((".", "/", "~")):
        raise InputError(f"{base} is neither a folder nor a hub id (owner/name)")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(
            f"{base} is not a local folder, and fetching it from the hub needs "
            "`pip install omgsr-jax[convert]`"
        ) from None
    try:
        return Path(snapshot_download(base, allow_patterns=_HUB_PATTERNS))
    except Exception as error:  # the hub's client raises dozens of types; all mean the same here
        raise InputError(
            f"{base} is not a local folder and could not be fetched from the hub: {error}"
        ) from error
