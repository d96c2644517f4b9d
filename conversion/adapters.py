"""The two adapters of OMGSR: in a folder as the published training code writes it, or in a zip.

Those of its relatives are in one file each: see relatives.py.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from omgsr_jax.descriptions import first_line
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR
from omgsr_jax.models.lora import LoRASpec
from omgsr_jax.storage import Pending, Weight

from . import backbones
from .backbones import BACKBONE_ADAPTERS, ENCODER_ADAPTERS, Backbone
from .diffusers_folder import SETTINGS, sha256
from .keymap import prefixed
from .peft_adapters import FILES, Adapter, find_adapter
from .recipes import Adapted
from .relatives import OneFile
from .tensor_files import PICKLE_ENDINGS


class Adapters:
    """The encoder's and the backbone's adapter, both or neither; or the backbone's alone, where
    `omgsr export` wrote a model that has no other."""

    def __init__(self, path: Path | None, *, shown: str | None, allow_pickle: bool = False):
        self.encoder: Adapter | None = None
        self.backbone: Adapter | None = None
        self.sources: dict[str, str] = {}
        if path is None:
            return
        encoder = find_adapter(path, ENCODER_ADAPTERS)
        backbone = find_adapter(path, BACKBONE_ADAPTERS)
        is_exported = (path / SETTINGS).is_file()
        if backbone is None or not (encoder or is_exported):
            raise InputError(
                f"{shown} is not an OMGSR adapter: expected the sub-folders "
                f"{ENCODER_ADAPTERS[0]} and {BACKBONE_ADAPTERS[0]}"
            )
        self.encoder = Adapter(encoder, allow_pickle=allow_pickle) if encoder else None
        self.backbone = Adapter(backbone, allow_pickle=allow_pickle)
        folders = [folder for folder in (encoder, backbone) if folder]
        for file in sorted(file for folder in folders for file in folder.iterdir()):
            if file.suffix in (".json", ".safetensors") and file.is_file():
                self.sources[str(file.relative_to(path))] = sha256(file)

    @property
    def encoder_spec(self) -> LoRASpec | None:
        return self.encoder.spec if self.encoder else None

    @property
    def backbone_spec(self) -> LoRASpec | None:
        return self.backbone.spec if self.backbone else None

    @property
    def adapted(self) -> Adapted | None:
        if not self.backbone:
            return None
        kind = backbones.of_adapter(self.backbone.folder.name)
        rank = self.encoder.spec.rank if self.encoder else 0
        return Adapted(kind.folder, rank, self.backbone.spec.rank)

    def require_kind(self, kind: Backbone, where: str) -> None:
        """They were trained on a backbone like that of the base."""
        if self.backbone is None:
            return
        trained = backbones.of_adapter(self.backbone.folder.name)
        if trained is not kind:
            raise InputError(
                f"{self.backbone.folder} is for a {trained.network}, and {where} has a "
                f"{kind.network}: choose the base that it was trained on with --base"
            )

    def factors(self, model: OMGSR) -> dict[str, Pending]:
        """Both adapters' factors by their names in the generator."""
        factors: dict[str, Pending] = {}
        for name, adapter, module in (
            ("vae.encoder", self.encoder, model.vae.encoder),
            ("backbone", self.backbone, model.backbone),
        ):
            if adapter:
                factors.update(prefixed(name, adapter.plan_factors(module)))
        return factors

    def changed(self, params: Mapping[str, Weight], dtype: np.dtype | None) -> dict[str, Pending]:
        """OMGSR's adapters change none of the base's weights."""
        return {}


def read(path: Path | None, *, shown: str | None, allow_pickle: bool) -> Adapters | OneFile:
    """The adapters in a folder, or in a relative's file; `shown` is what the user calls them."""
    if path is not None and is_one_file(path):
        return OneFile(path, allow_pickle=allow_pickle)
    return Adapters(path, shown=shown, allow_pickle=allow_pickle)


def is_one_file(path: Path) -> bool:
    return path.suffix in PICKLE_ENDINGS


@contextmanager
def opened(adapter: str | Path) -> Iterator[Path]:
    """The folder of adapters, or what a zip holds of one, unpacked until the block ends. A file of
    a relative's adapters stays as it is."""
    path = Path(adapter).expanduser()
    if is_one_file(path) or not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="omgsr-adapter-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                _unpack(archive, Path(folder), str(path))
        except (InputError, OSError):
            raise
        except Exception as error:  # damage is reported by nearly every type there is
            raise InputError(
                f"{path} cannot be read as a zip of adapters: {first_line(error)}"
            ) from error
        yield Path(folder)


def _unpack(archive: zipfile.ZipFile, folder: Path, where: str) -> None:
    """The adapters' own files, each by its name: no path in the zip says where one is written."""
    found: dict[str, dict[str, zipfile.ZipInfo]] = {}
    for member in archive.infolist():
        *above, adapter, name = ("", "", *PurePosixPath(member.filename).parts)
        if adapter in ENCODER_ADAPTERS + BACKBONE_ADAPTERS and name in FILES:
            found.setdefault("/".join(above), {})[f"{adapter}/{name}"] = member
    if len(found) != 1:
        what = f"{len(found)} sets of adapters" if found else "no adapter"
        raise InputError(f"{where} holds {what}; expected one, with {' and '.join(FILES)}")
    (members,) = found.values()
    needed = sum(member.file_size for member in members.values())
    if needed > (free := shutil.disk_usage(folder).free):
        raise InputError(
            f"{where} unpacks to {needed / 1e9:.1f} GB, and {folder.parent} has "
            f"{free / 1e9:.1f} GB free; TMPDIR names another place"
        )
    for name, member in members.items():
        (folder / name).parent.mkdir(exist_ok=True)
        with archive.open(member) as packed, (folder / name).open("wb") as file:
            shutil.copyfileobj(packed, file)
