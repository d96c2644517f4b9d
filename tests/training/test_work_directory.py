"""A work directory belongs to one run, which is alone in it."""

import os
import signal
import time

import pytest

from omgsr_jax.errors import InputError
from omgsr_jax.training import distributed, work_directory
from omgsr_jax.training.config import RunConfig
from tests.hostile.judge import untouched

_CONFIG = {"seed": 1, "model": {"encoder_rank": 4}, "run": {"steps": 10}}


def _open(workdir, **changes):
    return work_directory.opened(workdir, _CONFIG | changes, RunConfig())


def test_a_work_directory_belongs_to_one_run(tmp_path):
    for steps in (10, 20):  # longer is fine
        with _open(tmp_path / "run", run={"steps": steps}):
            pass
    with (
        untouched(tmp_path),
        pytest.raises(InputError, match=r"model.encoder_rank is 4 there and 8 here"),
        _open(tmp_path / "run", model={"encoder_rank": 8}),
    ):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    for taken in ("other", "other/thesis.txt"):
        with (
            untouched(tmp_path),
            pytest.raises(InputError, match="not empty"),
            _open(tmp_path / taken),
        ):
            pass


def test_a_run_from_before_a_setting_was_known_had_its_default(tmp_path):
    with _open(tmp_path / "run"):
        pass

    def go_on(adaptive):
        known = {**_CONFIG, "model": {**_CONFIG["model"], "adaptive": adaptive}}
        defaults = {"seed": 0, "model": {"encoder_rank": 16, "adaptive": False}}
        return work_directory.opened(tmp_path / "run", known, RunConfig(), defaults)

    with go_on(False):
        pass
    with pytest.raises(InputError, match="adaptive is False there and True here"), go_on(True):
        pass


def test_a_second_run_is_refused_and_touches_nothing(tmp_path):
    with (
        _open(tmp_path / "run"),
        untouched(tmp_path),
        pytest.raises(InputError, match=rf"in use by process {os.getpid()} on "),
        _open(tmp_path / "run"),
    ):
        pass
    with _open(tmp_path / "run"):  # after the first it may
        pass


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # the child only locks
def test_a_killed_run_leaves_no_lock_behind(tmp_path):
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        with work_directory.locked(tmp_path):
            os.write(told, b"locked")
            time.sleep(60)
    try:
        assert os.read(heard, 6) == b"locked"
        with (
            pytest.raises(InputError, match=f"in use by process {child} on "),
            work_directory.locked(tmp_path),
        ):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with work_directory.locked(tmp_path):  # run.lock is still there, and nobody holds it
        assert f"process {os.getpid()} on " in (tmp_path / "run.lock").read_text()


def test_a_directory_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot be written: Not a directory"),
        _open(tmp_path / "file" / "run"),
    ):
        pass


def test_what_the_first_process_finds_is_raised_in_every_process(monkeypatch):
    def fail():
        raise InputError("in use: größer")

    def never():
        pytest.fail("only the first process looks")

    with pytest.raises(InputError, match="größer"):
        distributed.first_process_does(fail)
    sent = []
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        distributed.multihost_utils, "broadcast_one_to_all", lambda x: sent.append(x) or sent[0]
    )
    with pytest.raises(InputError, match="größer"):
        distributed.first_process_does(fail)
    monkeypatch.setattr(distributed.jax, "process_index", lambda: 1)
    with pytest.raises(InputError, match="größer"):
        distributed.first_process_does(never)
