"""A checkout of the published code: which version it is, and what it holds."""

import hashlib
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from omgsr_jax.errors import InputError

SCRIPTS = {
    "v1": {
        "infer s": "infer_omgsr_s.py",
        "infer f": "infer_omgsr_f.py",
        "train s": "train_omgsr_s.py",
        "train f": "train_omgsr_f.py",
    },
    "v2": {
        "infer s": "infer/infer_omgsr_s.py",
        "infer f": "infer/infer_omgsr_f.py",
        "train s": "train/train_omgsr_s.py",
        "train f": "train/train_omgsr_f.py",
    },
}
# The module of the classes behind a script, and that of the data set.
_CLASSES = {"v1": "inference.omgsr_f_infer_model", "v2": "infer.omgsr_f_infer_model"}
_DATA = {"v1": "dataloader.my_dataset", "v2": "dataset.my_dataset"}
_CONVNEXT = "dinov3_gan/facebookresearch_dinov3_main/dinov3/models/convnext.py"


@dataclass(frozen=True)
class Checkout:
    folder: Path
    version: str  # v1 or v2

    @classmethod
    def at(cls, folder: Path) -> "Checkout":
        for version, scripts in SCRIPTS.items():
            if all((folder / script).is_file() for script in scripts.values()):
                return cls(folder.resolve(), version)
        raise InputError(
            f"{folder} is not a checkout of github.com/wuer5/OMGSR at 86297b2 or 8996613: it has "
            f"neither {' nor '.join(scripts['infer s'] for scripts in SCRIPTS.values())}"
        )

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of its scripts, so that a report says what it was made with."""
        return {
            script: hashlib.sha256((self.folder / script).read_bytes()).hexdigest()
            for script in SCRIPTS[self.version].values()
        }

    @property
    def data_module(self) -> str:
        return _DATA[self.version]

    @property
    def flux_classes(self) -> str:
        return _CLASSES[self.version]

    def run(self, script: str, arguments: Sequence[str]) -> None:
        """A script as its command runs it, in this process."""
        path = str(self._path(script))
        sys.argv = [path, *arguments]
        runpy.run_path(path, run_name="__main__")

    def load(self, script: str) -> Any:
        """A script as a module, whose `main` has not run."""
        return _module(f"published_{script.replace(' ', '_')}", self._path(script))

    def convnext(self) -> Any:
        """DINOv3's own ConvNeXt, which v2 holds."""
        return _module("published_convnext", self.folder / _CONVNEXT)

    def _path(self, script: str) -> Path:
        return self.folder / SCRIPTS[self.version][script]


def _module(name: str, path: Path) -> ModuleType:
    sys.dont_write_bytecode = True  # nothing is written into the checkout
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
