"""What comes inside the package: the nano model, and photographs to try it on.

nano/      a converted model like any other, with its model card
samples/   pairs of low and high quality, which it never saw

Begin with `model_directory`, which turns a name or a path into a directory.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from .. import digests, hub
from ..buckets import is_remote
from ..descriptions import read_json
from ..errors import InputError

FOLDER = Path(__file__).parent
NANO = "nano"
# Models that go by a name, and their directories. A folder of that name is meant by ./nano.
MODELS = {NANO: FOLDER / "nano"}
# The demo's photographs; the first is its default.
SAMPLES = ("coffee", "astronaut", "chelsea", "rocket")

_MEND = "install omgsr-jax again"


@dataclass(frozen=True)
class Sample:
    lr: Path
    hr: Path


def sample(name: str) -> Sample:
    """The files of one of `SAMPLES`."""
    if name not in SAMPLES:
        raise InputError(f"there is no sample {name!r}; there are {', '.join(SAMPLES)}")
    folder = FOLDER / "samples"
    files = Sample(folder / "lr" / f"{name}.png", folder / "hr" / f"{name}.webp")
    for file in (files.lr, files.hr):
        if not file.is_file():
            raise InputError(f"{file} is missing from the installed package: {_MEND}")
    return files


def model_directory(model: str | os.PathLike[str]) -> str:
    """Where a model is, from its name or its path."""
    name = os.fspath(model)
    if name in MODELS:
        directory = MODELS[name]
        if not directory.is_dir():
            raise InputError(
                f"the model {name!r} is missing from the installed package (there is no "
                f"{directory}): {_MEND}, or name the directory of another model"
            )
        return str(directory)
    if is_remote(name) or Path(name).is_dir():
        return name
    if hub.is_name(name):
        return str(_from_hub(name))
    raise InputError(
        f"{name!r} is not a model: expected {' or '.join(map(repr, MODELS))}, the directory of a "
        "converted one, or its name on the hub (user/name). Make one with `omgsr convert`."
    )


def is_on_hub(model: str) -> bool:
    """Whether a model's name is that of a repository, of which the cache holds a copy."""
    return model not in MODELS and not Path(model).is_dir() and hub.is_name(model)


def _from_hub(name: str) -> Path:
    """The files of a converted model, and no others of its repository, in the hub's cache."""
    try:
        repository = hub.repository(name)
    except hub.UnavailableError as error:
        raise InputError(f"{name!r} is not a local directory, and {error}") from error
    if digests.CARD not in repository.files:
        raise InputError(
            f"{name} on the hub is not a converted model: it has no {digests.CARD}. A diffusers "
            f"checkpoint is converted first: `omgsr convert --base {name} ...`."
        )
    card = repository.fetch([digests.CARD]) / digests.CARD
    content = read_json(card)
    if digests.FILES in content:
        return repository.fetch(digests.listed(content[digests.FILES], f"{card} is damaged"))
    return repository.fetch(file for file in repository.files if file.startswith("params/"))
