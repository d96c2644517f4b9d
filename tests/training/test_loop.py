"""The loop: every way to stop, and that a resumed run repeats the uninterrupted one."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from omgsr_jax.data.workers import Workers
from omgsr_jax.errors import InputError
from omgsr_jax.training import checkpoints, log, loop
from tests.training import toy

_ROOT = Path(__file__).parents[2]


def _losses(workdir):
    return {step: values["loss"] for step, values in log.read(workdir).items() if "loss" in values}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "whole"
    assert toy.run(workdir, 45) == loop.Outcome(45, finished=True)
    return _losses(workdir)


def test_sigterm_saves_and_the_next_start_repeats_the_uninterrupted_run(uninterrupted, tmp_path):
    def terminate(_batch):
        os.kill(os.getpid(), signal.SIGTERM)

    assert toy.run(tmp_path, 45, at=16, do=terminate) == loop.Outcome(17, finished=False)
    assert checkpoints.find(tmp_path, "latest") == 17  # not only every 10 steps
    assert toy.run(tmp_path, 45) == loop.Outcome(45, finished=True)
    assert _losses(tmp_path) == uninterrupted
    assert len(uninterrupted) == 45


def test_a_finished_run_is_left_as_it_is(tmp_path):
    toy.run(tmp_path, 12)
    before = _losses(tmp_path)
    assert toy.run(tmp_path, 12) == loop.Outcome(12, finished=True)
    assert _losses(tmp_path) == before


def test_stops_on_nan_with_the_example_and_keeps_the_last_good_checkpoint(uninterrupted, tmp_path):
    def spoil(batch):
        batch["x"][2] = np.nan

    with pytest.raises(loop.NotFiniteError, match=r"step 25 .*loss = nan.*Examples: photo-\d+\."):
        toy.run(tmp_path, 45, at=24, do=spoil)
    assert checkpoints.find(tmp_path, "latest") == 20
    toy.run(tmp_path, 45)
    assert _losses(tmp_path) == uninterrupted


def test_utilisation_is_logged_where_it_is_known_but_not_of_the_step_that_compiles(tmp_path):
    toy.run(tmp_path, 3, utilisation=lambda seconds: 1 / seconds)
    first, *others = log.read(tmp_path).values()
    assert "time/step" not in first
    for values in others:
        expected = 1 / values["time/step"]
        assert values["time/model_flop_utilisation"] == pytest.approx(expected)


def test_the_number_of_workers_is_chosen_after_a_few_steps_and_said(tmp_path, capsys):
    workers = Workers(None)
    workers.measured(1e-9)
    toy.run(tmp_path, 3, workers=workers)
    assert "data.workers" not in capsys.readouterr().out
    toy.run(tmp_path, 10, workers=workers)
    (said,) = (line for line in capsys.readouterr().out.splitlines() if "data.workers" in line)
    assert said.startswith("data.workers is set to 1: a pair takes a worker 0.000 s")
    assert log.read(tmp_path)[10]["data/workers"] == 1


def test_keeps_the_latest_and_the_best(tmp_path):
    scores = {0: 0.0, 10: 5.0, 20: 9.0, 30: 7.0, 40: 8.0, 50: 6.0}

    def validate(state):
        return {"psnr": scores[int(state.step)]}, {}

    toy.run(tmp_path, 50, validate=validate)
    assert [checkpoints.find(tmp_path, which) for which in ("best", "latest")] == [20, 50]
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [20, 40, 50]
    with pytest.raises(InputError, match="there are 20, 40, 50"):
        checkpoints.find(tmp_path, "30")


def test_a_full_disk_is_one_sentence_and_the_older_checkpoints_stay(tmp_path, capfd):
    """The system refuses to write more than 256 kB into one file, as it does on a full disk."""
    small, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(_batch):
        while not (tmp_path / "checkpoints" / "10").exists():  # it is written in the background
            time.sleep(0.01)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, hard))

    try:
        with pytest.raises(InputError) as caught:
            toy.run(tmp_path, 45, at=15, do=fill, ballast=2**18)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (small, hard))
    assert str(caught.value) == (
        f"checkpoint 20 could not be written to {tmp_path}/checkpoints: File too large. Those that "
        "are there are whole (10): mend the cause, such as a full disk, and start the same command "
        "again"
    )
    assert "Traceback" not in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["10"]
    assert toy.run(tmp_path, 25, ballast=2**18) == loop.Outcome(25, finished=True)
    assert checkpoints.find(tmp_path, "latest") == 25


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    toy.run(tmp_path, 10)
    task = toy.task()
    other = task.shapes._replace(weights={"kernel": jax.ShapeDtypeStruct((8,), np.float32)})
    with pytest.raises(InputError, match="checkpoint 10 does not hold"):
        checkpoints.restore_state(tmp_path, 10, other, task.shardings)


def _start(*arguments):
    command = [sys.executable, "-m", "tests.training.toy", *map(str, arguments)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _finish(*arguments):
    process = _start(*arguments)
    process.communicate()
    return process.returncode


def test_sigterm_while_the_step_is_compiled_ends_the_run_at_once(tmp_path):
    process = _start(tmp_path, 45, "busy", 0)
    try:
        assert process.stdout.readline() == b"busy\n"
        before = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - before < 5  # the step would take minutes
    assert (process.returncode, errors) == (3, b"")
    assert said == b"stopped before a step was done; the same command goes on from there\n"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "kill-while-writing"])
def test_kill_9_loses_only_the_steps_since_the_last_checkpoint(how, uninterrupted, tmp_path):
    assert _finish(tmp_path, 45, how, 20 if how == "kill-while-writing" else 23) == -signal.SIGKILL
    survivors = [int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]
    assert max(survivors) in (10, 20)
    if how == "kill":
        assert max(survivors) == 20
    assert _finish(tmp_path, 45) == 0
    assert _losses(tmp_path) == uninterrupted
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))
