"""Twenty kills of one run: at its start, between steps, while it saves, by SIGKILL and SIGTERM."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omgsr_jax.training import checkpoints, digests, log
from tests.training import toy

_ROOT = Path(__file__).parents[2]
_STEPS, _PAUSE = 900, 0.02
_MOMENTS = ("starting", "stepping", "saving", "terminating") * 5
pytestmark = pytest.mark.slow


def _start(workdir):
    command = [sys.executable, "-m", "tests.training.toy", str(workdir), str(_STEPS)]
    return subprocess.Popen(
        [*command, "slowly", str(_PAUSE)],
        cwd=_ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _wait_for_a_save(process, workdir):
    """Until files are being written that are no checkpoint yet."""
    while not list((workdir / "checkpoints").glob("*tmp*")):
        assert process.poll() is None
        time.sleep(0.001)


def _kill(process, moment, workdir, rng):
    if moment == "starting":
        time.sleep(rng.uniform(0, 3))
    else:
        assert any(line.startswith("step ") for line in process.stdout)  # it has begun
        time.sleep(rng.uniform(0, 0.6))
    if moment == "saving":
        _wait_for_a_save(process, workdir)
    process.send_signal(signal.SIGTERM if moment == "terminating" else signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == (3 if moment == "terminating" else -signal.SIGKILL)


def _losses(workdir):
    return {step: values["loss"] for step, values in log.read(workdir).items() if "loss" in values}


def test_twenty_kills_change_nothing(tmp_path):
    workdir, rng = tmp_path / "run", random.Random(0)
    folder = checkpoints.absolute(workdir) / "checkpoints"
    half_written, reached = 0, 0
    for moment in _MOMENTS:
        _kill(_start(workdir), moment, workdir, rng)
        half_written += bool(list(Path(folder).glob("*tmp*")))
        steps = checkpoints.steps_in(folder) if folder.exists() else []
        assert not [step for step in steps if digests.damage(folder / str(step))]
        assert max(steps, default=0) >= reached  # what was saved stays
        reached = max(steps, default=0)
    assert 0 < reached < _STEPS
    assert half_written  # or no kill came while a checkpoint was written
    process = _start(workdir)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert f"resumed from step {reached}\n" in said
    assert not list(Path(folder).glob("*tmp*"))
    toy.run(tmp_path / "whole", _STEPS)
    assert _losses(workdir) == _losses(tmp_path / "whole")
    print(f"{len(_MOMENTS)} kills, {half_written} of them while a checkpoint was written")
