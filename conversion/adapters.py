"""The two adapters of OMGSR: in a folder as the published training code writes it, or in a zip."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from omgsr_jax.descriptions import first_line
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR
from omgsr_jax.storage import Pending

from . import backbones
from .diffusers_folder import sha256
from .keymap import prefixed
from .peft_adapters import BACKBONE_FOLDERS, ENCODER_FOLDERS, FILES, Adapter, find_adapter
from .recipes import Adapted


class Adapters:
    """The encoder's and the backbone's adapter, both or neither."""

    def __init__(self, path: Path | None, *, shown: str | None, allow_pickle: bool = False):
        self.encoder: Adapter | None = None
        self.backbone: Adapter | None = None
        self.sources: dict[str, str] = {}
        if path is None:
            return
        encoder = find_adapter(path, ENCODER_FOLDERS)
        backbone = find_adapter(path, BACKBONE_FOLDERS)
        if not (encoder and backbone):
            raise InputError(
                f"{shown} is not an OMGSR adapter: expected the sub-folders "
                f"{ENCODER_FOLDERS[0]} and {BACKBONE_FOLDERS[0]}"
            )
        self.encoder = Adapter(encoder, allow_pickle=allow_pickle)
        self.backbone = Adapter(backbone, allow_pickle=allow_pickle)
        for file in sorted([*encoder.iterdir(), *backbone.iterdir()]):
            if file.suffix in (".json", ".safetensors") and file.is_file():
                self.sources[str(file.relative_to(path))] = sha256(file)

    @property
    def adapted(self) -> Adapted | None:
        if not (self.encoder and self.backbone):
            return None
        kind = backbones.of_adapter(self.backbone.folder.name)
        return Adapted(kind.folder, self.encoder.spec.rank, self.backbone.spec.rank)

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


@contextmanager
def opened(adapter: str | Path) -> Iterator[Path]:
    """The folder of adapters, or what a zip holds of one, unpacked until the block ends."""
    path = Path(adapter).expanduser()
    if not path.is_file():
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
        if adapter in ENCODER_FOLDERS + BACKBONE_FOLDERS and name in FILES:
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
