"""A folder of arbitrary sizes compiles a few programs, and none when it is done again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import photo

ROOT = Path(__file__).parents[2]

# Runs the command, and counts what JAX compiled without finding it in its cache.
_PROGRAM = """
import json, sys, jax
missed = []
jax.monitoring.register_event_listener(
    lambda name, **_: missed.append(name) if name.endswith("/cache_misses") else None
)
from omgsr_jax import cli
from omgsr_jax.inference.programs import Programs
compiled, compile = [], Programs.compile
def counting(self, program):
    compiled.append(str(program))
    compile(self, program)
Programs.compile = counting
status = cli.main(sys.argv[1:])
print(json.dumps({"status": status, "programs": compiled, "missed": len(missed)}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "smallest", "largest", "scale"),
    [
        (12, 10, 36, 4),
        (60, 40, 900, 1),
    ],
)
def test_many_sizes_need_four_programs_and_then_none(
    model_64, tmp_path, count, smallest, largest, scale
):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    sizes = rng.integers(smallest, largest + 1, (count, 2))
    for number, (height, width) in enumerate(sizes):
        image = Image.fromarray(photo(int(height), int(width), seed=number))
        image.save(tmp_path / "in" / f"{number:02}.png")

    def run(out: str) -> dict:
        command = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / out)]
        command += ["--model", str(model_64), "--scale", str(scale)]
        outcome = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *command],
            cwd=ROOT,
            env=_without_jax_cache() | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
            check=True,
            capture_output=True,
            text=True,
        )
        return json.loads(outcome.stdout.splitlines()[-1])

    first, second = run("first"), run("second")
    assert first["status"] == second["status"] == 0
    # At most four canvases, each with a program to encode and one to decode; one to predict.
    assert 3 <= len(first["programs"]) <= 9
    assert len({name for name in first["programs"] if name.startswith("encode")}) <= 4
    # Programs, and constants in the shapes of the weights, at load.
    assert first["missed"] >= len(first["programs"])
    assert second["missed"] == 0
    assert second["programs"] == first["programs"]  # loaded from the cache
    for number, (height, width) in enumerate(sizes):
        with Image.open(tmp_path / "first" / f"{number:02}.png") as image:
            assert image.size == (width * scale, height * scale)


def _without_jax_cache() -> dict[str, str]:
    """The tests' own settings of JAX's cache would count instead of the command's: small programs
    that take longer than usual would be kept by one of its processes only."""
    cache = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE")
    return {name: value for name, value in os.environ.items() if not name.startswith(cache)}
