"""`omgsr upscale` killed at any moment: nothing is half-written; it goes on to the same bits."""

import multiprocessing
import os
import random
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from PIL import Image

from omgsr_jax import cli, files
from tests.inference.conftest import photo
from tests.stand_in import write_stand_in

KILLS, IMAGES = 40, 120
_SEED = 0


def _start(*arguments: object, cache: Path) -> ForkServerProcess:
    """The command in a process of its own, which has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["omgsr_jax.inference.folder", "omgsr_jax.cli.upscale"])
    process = context.Process(target=_upscale, args=(list(map(str, arguments)), str(cache)))
    process.start()
    return process


def _upscale(arguments: list[str], cache: str) -> None:
    import jax

    jax.config.update("jax_compilation_cache_dir", cache)
    sys.exit(cli.main(["upscale", *arguments, "--skip-existing", "--compare"]))


def _ended_well(process: ForkServerProcess) -> bool:
    process.join()
    return process.exitcode == 0


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.exists() else set()


def _is_partial(name: str) -> bool:
    return name.startswith(".omgsr-") and name.endswith(".partial")


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_whole_files_and_goes_on_to_the_same_bits(
    compile_cache, tmp_path
):
    model = write_stand_in(tmp_path / "model", process_size=64)
    source, whole, out = tmp_path / "in", tmp_path / "whole", tmp_path / "out"
    source.mkdir()
    rng = random.Random(_SEED)
    for number in range(IMAGES):
        size = rng.randrange(16, 40), rng.randrange(16, 40)
        Image.fromarray(photo(*size, seed=number)).save(source / f"{number:03}.png")
    started = time.monotonic()
    assert _ended_well(_start(source, "-o", whole, "--model", model, cache=compile_cache))
    seconds = time.monotonic() - started
    undisturbed = _contents(whole)
    assert len(undisturbed) == 2 * IMAGES

    begun = 0  # kills that found a file begun
    for kill in range(KILLS):
        before = _contents(out)
        process = _start(source, "-o", out, "--model", model, cache=compile_cache)
        if kill % 2:  # in the middle of a file
            while not any(map(_is_partial, _names(out) - before.keys())) and process.is_alive():
                pass
        elif kill % 4:  # between files
            while len(_names(out)) == len(before) and process.is_alive():
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.3))
        else:
            time.sleep(rng.uniform(0, seconds))
        process.kill()
        process.join()
        found = _contents(out)
        partials = {name for name in found if _is_partial(name)}
        begun += bool(partials - before.keys())
        wrong = [n for n in found.keys() - partials if found[n] != undisturbed[n]]
        assert not wrong, f"kill {kill}: {wrong} are not as in an undisturbed run"
        if len(found) - len(partials) == len(undisturbed):  # it was done: from the beginning
            for name in undisturbed:
                (out / name).unlink()
    print(f"{KILLS} kills, {begun} of them in the middle of a file")
    assert begun >= KILLS // 4

    for name in _contents(out):
        if _is_partial(name):
            os.utime(out / name, (0, 0))
    assert _ended_well(_start(source, "-o", out, "--model", model, cache=compile_cache))
    assert _contents(out) == undisturbed


def test_what_a_killed_run_has_begun_is_removed_and_what_another_writes_is_not(tmp_path):
    old, new, other = (tmp_path / name for name in (".omgsr-1.partial", ".omgsr-2.partial", ".x"))
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    files.remove_leftovers([tmp_path, tmp_path / "not there", "gs://bucket/folder"])
    assert sorted(tmp_path.iterdir()) == [new, other]
