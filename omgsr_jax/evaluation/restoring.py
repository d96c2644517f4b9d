"""A benchmark's inputs, restored by a model: each to the size of its reference."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import Outputs
from ..inference import folder
from ..inference.jobs import Job
from ..inference.loading import load
from ..inference.options import Options
from ..inference.sizes import Enlargement
from .pairs import PairedFiles, find_pairs, images_by_name, size_of

Progress = Callable[[str, int, int], None]  # model, images done, images in all


def restore_by_each(
    models: Sequence[str],
    lr_dir: str | Path,
    hr_dir: str | Path,
    out: str | Path,
    *,
    begin: Callable[[str], None],
    **how: Any,
) -> Iterator[Path]:
    """Writes what each model makes to a folder of its own in `out`: a/x and b/x to x and x-2.

    Args:
        begin: told what is done next.
        how: see `restore_inputs`.
    """
    planned = Outputs()
    for model in models:
        folder = planned.claim(planned.free(Path(out) / Path(model).resolve().name))
        begin(f"loading {model}")
        restore_inputs(model, lr_dir, hr_dir, folder, **how)
        yield folder


def restore_inputs(
    model: str | Path,
    lr_dir: str | Path,
    hr_dir: str | Path,
    out: str | Path,
    *,
    reads: Sequence[str | Path] = (),
    images: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Writes to `out` what the model makes of every input that has a reference, as PNG; or of so
    many `images`, evenly from the list of names.

    An input that cannot be restored ends it: means over fewer images would not compare. Nothing is
    written over an input, a reference, or an image of the folders `reads`.
    """
    out = Path(out)
    files = evenly(find_pairs(hr_dir, hr_dir, lr_dir), images)
    read = [path for folder in (lr_dir, hr_dir, *reads) for path in images_by_name(folder).values()]
    outputs = Outputs(read)
    by_scale: dict[float, list[Job]] = {}
    for file in files:
        assert file.lr  # as a folder of them was given
        job = Job(file.lr, outputs.claim(out / f"{file.name}.png"))
        by_scale.setdefault(file.size[0] / size_of(file.lr)[0], []).append(job)
    upscaler = load(model)
    done = 0
    for scale, jobs in by_scale.items():
        options = Options(Enlargement(scale=scale))
        for report in folder.upscale_files(upscaler, jobs, options):
            if report.error:
                raise InputError(f"{model} cannot be scored: {report.error}")
            done += 1
            if progress:
                progress(Path(model).name, done, len(files))


def evenly(files: Sequence[PairedFiles], count: int | None) -> list[PairedFiles]:
    """So many of them, spread over their names; all for None."""
    if count is None or count >= len(files):
        return list(files)
    by_name = sorted(files, key=lambda file: file.name)
    return [by_name[i * len(by_name) // count] for i in range(count)]
