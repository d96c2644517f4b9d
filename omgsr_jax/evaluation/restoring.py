"""A benchmark's inputs, restored by a model: each to the size of its reference."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError
from ..files import Outputs
from ..inference import folder
from ..inference.jobs import Job
from ..inference.loading import load
from ..inference.options import Options
from ..inference.sizes import Enlargement
from .pairs import find_pairs, images_by_name, size_of

Progress = Callable[[str, int, int], None]  # model, images done, images in all


def restore_inputs(
    model: str | Path,
    lr_dir: str | Path,
    hr_dir: str | Path,
    out: str | Path,
    *,
    reads: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> None:
    """Writes to `out` what the model makes of every input that has a reference, as PNG.

    An input that cannot be restored ends it: means over fewer images would not compare. Nothing is
    written over an input, a reference, or an image of the folders `reads`.
    """
    out = Path(out)
    files = find_pairs(hr_dir, hr_dir, lr_dir)
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
