"""`omgsr upscale` killed at any moment: nothing is half-written; it goes on to the same bits."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from omgsr_jax import files
from tests.inference.conftest import photo

ROOT = Path(__file__).parents[2]
KILLS, IMAGES = 40, 120
_SEED = 0


def _start(model: Path, cache: Path, source: Path, out: Path) -> subprocess.Popen:
    arguments = [source, "-o", out, "--model", model, "--skip-existing", "--compare"]
    return subprocess.Popen(
        [sys.executable, "-m", "omgsr_jax.cli", "upscale", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def _is_partial(name: str) -> bool:
    return name.startswith(".omgsr-") and name.endswith(".partial")


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_whole_files_and_goes_on_to_the_same_bits(
    model_64, compile_cache, tmp_path
):
    source, whole, out = tmp_path / "in", tmp_path / "whole", tmp_path / "out"
    source.mkdir()
    rng = random.Random(_SEED)
    for number in range(IMAGES):
        size = rng.randrange(16, 40), rng.randrange(16, 40)
        Image.fromarray(photo(*size, seed=number)).save(source / f"{number:03}.png")
    started = time.monotonic()
    assert _start(model_64, compile_cache, source, whole).wait() == 0
    seconds = time.monotonic() - started
    undisturbed = _contents(whole)
    assert len(undisturbed) == 2 * IMAGES

    begun = 0  # kills that found a file begun
    for kill in range(KILLS):
        before = _contents(out)
        process = _start(model_64, compile_cache, source, out)
        if kill % 4:  # most of them while files are written
            while len(_contents(out)) == len(before) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.3))
        else:
            time.sleep(rng.uniform(0, seconds))
        process.kill()
        process.wait()
        found = _contents(out)
        partials = {name for name in found if _is_partial(name)}
        begun += bool(partials - before.keys())
        wrong = [n for n in found.keys() - partials if found[n] != undisturbed[n]]
        assert not wrong, f"kill {kill}: {wrong} are not as in an undisturbed run"
        if len(found) - len(partials) == len(undisturbed):  # it was done: from the beginning
            for name in undisturbed:
                (out / name).unlink()
    print(f"{KILLS} kills, {begun} of them in the middle of a file")

    for name in _contents(out):
        if _is_partial(name):
            os.utime(out / name, (0, 0))
    process = _start(model_64, compile_cache, source, out)
    assert process.wait() == 0, process.stderr
    assert _contents(out) == undisturbed


def test_what_a_killed_run_has_begun_is_removed_and_what_another_writes_is_not(tmp_path):
    old, new, other = (tmp_path / name for name in (".omgsr-1.partial", ".omgsr-2.partial", ".x"))
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    files.remove_leftovers([tmp_path, tmp_path / "not there", "gs://bucket/folder"])
    assert sorted(tmp_path.iterdir()) == [new, other]
