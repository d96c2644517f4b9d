"""A run whose work directory lies in a bucket: a stand-in for Google's on loopback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from omgsr_jax.errors import InputError
from omgsr_jax.training import appended, checkpoints, log, loop, work_directory
from tests.training import toy

pytestmark = pytest.mark.slow
_ROOT = Path(__file__).parents[2]


def _losses(workdir):
    return {step: values["loss"] for step, values in log.read(workdir).items() if "loss" in values}


@pytest.fixture(autouse=True)
def nothing_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not [path for path in Path().rglob("*") if ":" in path.name]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "whole"
    toy.run(workdir, 25)
    return _losses(workdir)


@pytest.fixture(scope="module")
def finished(fake_buckets, tmp_path_factory):
    """What two starts of a run of 25 steps left in a bucket, with checkpoints 20 and 25."""
    workdir = "gs://finished/toy"
    fake_buckets.buckets["finished"] = {}

    def terminate(_batch):
        os.kill(os.getpid(), signal.SIGTERM)

    picture = np.zeros((2, 2, 3), np.uint8)
    options = {"validate": lambda state: ({"psnr": 1.0}, {"validation": picture})}
    assert toy.run(workdir, 25, at=14, do=terminate, **options) == loop.Outcome(15, finished=False)
    assert checkpoints.find(workdir, "latest") == 15
    assert toy.run(workdir, 25, **options) == loop.Outcome(25, finished=True)
    return workdir


@pytest.fixture
def workdir(finished, fake_buckets, bucket):
    """A copy of it."""
    fake_buckets.buckets[bucket].update(fake_buckets.buckets["finished"])
    return f"gs://{bucket}/toy"


def test_a_run_in_a_bucket_stops_and_goes_on_as_on_disk(uninterrupted, finished, fake_buckets):
    assert _losses(finished) == uninterrupted
    names = fake_buckets.names("finished", "toy/")
    assert sum(name.startswith("toy/events.out.tfevents.") for name in names) == 2
    assert "toy/images/validation-0000025.png" in names
    assert work_directory.read_config(finished)["run"]["steps"] == 25
    spent = json.loads(fake_buckets.buckets["finished"]["toy/goodput.json"].content)["seconds"]
    assert {"restoring", "compiling", "data", "step", "checkpoint"} <= spent.keys()


def test_what_was_half_written_is_no_checkpoint(workdir, fake_buckets, bucket, capsys):
    del fake_buckets.buckets[bucket]["toy/checkpoints/25/commit_success.txt"]
    assert checkpoints.find(workdir, "latest") == 20
    assert toy.run(workdir, 25) == loop.Outcome(25, finished=True)
    assert "resumed from step 20\n" in capsys.readouterr().out
    assert checkpoints.find(workdir, "latest") == 25


def test_a_damaged_checkpoint_in_a_bucket_is_set_aside_when_asked(
    workdir, fake_buckets, bucket, capsys
):
    names = fake_buckets.names(bucket, "toy/checkpoints/25/state/")
    data = next(name for name in names if "/d/" in name)
    fake_buckets.put(bucket, data, b"cut")
    with pytest.raises(InputError, match=r"checkpoint 25 in .* is damaged .*resume=last_whole"):
        toy.run(workdir, 25)
    toy.run(workdir, 25, resume="last_whole")
    assert "resumed from step 20\n" in capsys.readouterr().out
    assert data.replace("checkpoints/", "damaged/") in fake_buckets.names(bucket)


def test_a_full_bucket_is_one_sentence_and_the_older_checkpoints_stay(
    workdir, fake_buckets, bucket
):
    def fill(_batch):
        fake_buckets.full.add(bucket)

    with pytest.raises(InputError, match=r"cannot be written: forbidden: The project exceeded"):
        toy.run(workdir, 45, at=28, do=fill)
    assert checkpoints.find(workdir, "latest") == 25


def test_a_bucket_that_is_not_there_is_one_sentence(fake_buckets):
    with pytest.raises(InputError, match="there is no bucket gs://nowhere"):
        toy.run("gs://nowhere/run", 5)


def test_objects_that_grow_are_written_again_until_they_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr(appended, "_LARGEST", 8)
    objects = appended.Objects(lambda number: tmp_path / f"{number}", b"head ")
    for part in (b"a", b"bcde", b"f"):
        objects.write(part)
        objects.sync()
    objects.flush()  # it is not due yet, and nothing is new
    objects.write(b"g")
    objects.close()
    assert [(tmp_path / str(i)).read_bytes() for i in range(2)] == [b"head abcde", b"head fg"]


def test_a_run_in_a_bucket_goes_on_after_kill_9(uninterrupted, fake_buckets, bucket):
    workdir = f"gs://{bucket}/toy"
    command = [sys.executable, "-m", "tests.training.toy", workdir, "25"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}

    def run(*how):
        done = subprocess.run(
            [*command, *how], cwd=_ROOT, env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    for how in (("kill", "13"), ("kill-while-writing", "20")):
        code, _, errors = run(*how)
        assert code == -signal.SIGKILL, errors[-2000:]
    code, said, errors = run()
    assert code == 0, errors[-2000:]
    assert "resumed from step" in said
    assert _losses(workdir) == uninterrupted
    assert not list(_ROOT.glob("gs*"))
