"""Diffusers folders: one sub-folder per component, each a config and its weights.

Of a folder on the hub, what is read is fetched, and nothing else: no twins in fp16, no checkpoints
in one file.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from omgsr_jax.descriptions import Json, read_json
from omgsr_jax.errors import InputError
from omgsr_jax.hub import Repository, UnavailableError, is_name, repository

from .tensor_files import Tensors, is_index, main_file, open_tensors, pickles, shards

# Names of the weights' files, without their endings.
WEIGHTS, TEXT_WEIGHTS = "diffusion_pytorch_model", "model"
SCHEDULER = "scheduler_config.json"
MODEL_INDEX = "model_index.json"
# What `omgsr export` remembers of a converted model that no file of diffusers can say.
SETTINGS = "recipe.json"
_NETWORKS = ("unet", "transformer", "vae")
_TOKENIZER_ENDINGS = (".json", ".txt", ".model", ".jinja")


class DiffusersFolder:
    """A diffusers checkpoint: a local folder, or a hub id, of which files come into a cache."""

    def __init__(self, base: str, *, allow_pickle: bool = False):
        self.allow_pickle = allow_pickle
        self.sources: dict[str, str] = {}
        self._hub = _repository(base)
        self.hub_id = self._hub.name if self._hub else ""
        self.path = self._hub.folder if self._hub else Path(base).expanduser()
        if not any(self.has(f"{part}/config.json") for part in _NETWORKS):
            raise InputError(
                f"{self._hub.name if self._hub else self.path} is not a diffusers model: expected "
                f"sub-folders such as {', '.join(f'{part}/' for part in _NETWORKS)}, each with a "
                "config.json"
            )

    def has(self, name: str) -> bool:
        """Whether there is a file of this name, or a folder."""
        if self._hub is None:
            return (self.path / name).exists()
        return name in self._hub.files or any(f.startswith(f"{name}/") for f in self._hub.files)

    def fetch(
        self,
        networks: Iterable[str],
        texts: Iterable[str] = (),
        *,
        digests: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Has all that is read of these components in the cache: the weights' file, or its shards.

        Args:
            networks: components of diffusers.
            texts: text encoders, each beside the tokenizer that belongs to it.
            digests: the sha256 that files must have, where it is known and the hub says it.
        """
        if self._hub is None:
            return
        wanted: list[str] = []
        for part in networks:
            wanted += [f"{part}/config.json", *self._weights(part, WEIGHTS)]
        for part in texts:
            wanted += [f"{part}/config.json", *self._weights(part, TEXT_WEIGHTS)]
            wanted += self._tokenizer(tokenizer_of(part))
        _require_digests(self._hub, {n: digests[n] for n in wanted if n in digests})
        self._hub.fetch(wanted)

    def _weights(self, part: str, stem: str) -> list[str]:
        names = self._names(part)
        main = main_file(names, stem)
        found = [main] if main else []
        if main and is_index(main):
            self._fetched(f"{part}/{main}")
            found += sorted(set(shards(self.path / part / main).values()))
        if not main:
            where = f"{self.hub_id}/{part}"
            found = pickles(names, stem, allow_pickle=self.allow_pickle, where=where)
        return [f"{part}/{name}" for name in found or [f"{stem}.safetensors"]]

    def _tokenizer(self, part: str) -> list[str]:
        found = [name for name in self._names(part) if name.endswith(_TOKENIZER_ENDINGS)]
        return [f"{part}/{name}" for name in found or ["tokenizer_config.json"]]

    def _names(self, part: str) -> list[str]:
        files = map(PurePosixPath, self._hub.files if self._hub else ())
        return [file.name for file in files if str(file.parent) == part]

    def config(self, part: str, name: str = "config.json") -> Json:
        return read_json(self.used(f"{part}/{name}"))

    def folder(self, part: str) -> Path:
        """A component that another library reads as a whole, such as the tokenizer."""
        if not self.has(part):
            raise InputError(f"{self.path} has no {part}/")
        for path in sorted((self.path / part).iterdir()):
            self.used(f"{part}/{path.name}")
        return self.path / part

    def tensors(self, part: str, stem: str = WEIGHTS) -> Tensors:
        """The weights of a component, by their PyTorch keys."""
        tensors = open_tensors(self.path / part, stem, allow_pickle=self.allow_pickle)
        for file in tensors.files:
            self.used(f"{part}/{file.path.name}")
        return tensors

    def used(self, name: str) -> Path:
        """The file of this name, which is among the sources from now on."""
        path = self._fetched(name)
        if path.is_file():
            self.sources[name] = sha256(path)
        return path

    def _fetched(self, name: str) -> Path:
        if self._hub:
            self._hub.fetch([name])
        return self.path / name


def tokenizer_of(text_encoder: str) -> str:
    """tokenizer belongs to text_encoder, tokenizer_2 to text_encoder_2."""
    return text_encoder.replace("text_encoder", "tokenizer")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_digests(hub: Repository, expected: Mapping[str, str]) -> None:
    for name, digest in expected.items():
        announced = hub.files[name].sha256 if name in hub.files else None
        if announced not in (None, digest):
            raise UnavailableError(
                f"{hub.name} does not hold what its name says: its {name} has the sha256 "
                f"{announced}, expected {digest}"
            )


def _repository(base: str) -> Repository | None:
    path = Path(base).expanduser()
    if path.is_dir():
        return None
    if path.exists():
        raise InputError(f"{base} is a file; expected a diffusers folder or a hub id")
    if not is_name(base):
        raise InputError(f"{base} is neither a folder nor a hub id (owner/name)")
    return repository(base)
