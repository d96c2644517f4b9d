"""A run whose work directory is damaged says so, or goes on with what it would have computed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from omgsr_jax.errors import InputError
from omgsr_jax.training import checkpoints, log
from tests.hostile.checkpoints import BEST, DAMAGED, HARMLESS, LATEST, RUN_FILES, STEPS, flip
from tests.hostile.judge import assert_sentence, untouched
from tests.training import toy

_MORE = 2  # steps that a run takes when it goes on


def _validate(state):
    return {"psnr": float(BEST - int(state.step))}, {}  # of the best, 0


def _go_on(workdir, **options):
    return toy.run(workdir, LATEST + _MORE, validate=_validate, **options)


def _losses(workdir):
    found = log.read(workdir)
    return {s: v["loss"] for s, v in found.items() if isinstance(s, int) and "loss" in v}


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("run") / "run"
    toy.run(workdir, LATEST, validate=_validate)
    assert tuple(checkpoints.steps_in(checkpoints.absolute(workdir) / "checkpoints")) == STEPS
    return workdir


@pytest.fixture(scope="session")
def undisturbed(run, tmp_path_factory) -> dict[int, float]:
    workdir = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(run, workdir)
    _go_on(workdir)
    return _losses(workdir)


@pytest.fixture
def workdir(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def _assert_goes_on(workdir, undisturbed, step, capsys, *said, **options):
    before = _losses(workdir)
    (workdir / log.METRICS).write_text("")
    assert _go_on(workdir, **options).finished
    out = capsys.readouterr().out
    assert f"resumed from step {step}\n" in out
    assert not [words for words in said if words not in out]
    expected = {n: loss for n, loss in undisturbed.items() if n > step}
    assert _losses(workdir) == expected, before
    assert checkpoints.find(workdir, "latest") == LATEST + _MORE


@pytest.mark.parametrize("case", DAMAGED, ids=lambda case: case.name)
def test_a_damaged_checkpoint_is_named_and_left_only_when_asked(case, workdir, undisturbed, capsys):
    case.spoil(workdir)
    with untouched(workdir), pytest.raises(InputError) as caught:
        _go_on(workdir)
    assert_sentence(str(caught.value), *case.refused)
    if case.last_whole is None:
        with untouched(workdir), pytest.raises(InputError) as caught:
            _go_on(workdir, resume="last_whole")
        assert_sentence(str(caught.value), *case.refused)
        return
    _assert_goes_on(
        workdir, undisturbed, case.last_whole, capsys, "damaged/30", resume="last_whole"
    )
    assert (workdir / "damaged" / "30").is_dir()  # nothing is thrown away


@pytest.mark.parametrize("case", HARMLESS, ids=lambda case: case.name)
def test_a_run_goes_on_from_what_is_whole(case, workdir, undisturbed, capsys):
    case.spoil(workdir)
    _assert_goes_on(workdir, undisturbed, case.resumes, capsys, *case.said)
    assert not list((workdir / "checkpoints").glob("*tmp*"))


@pytest.mark.parametrize("case", RUN_FILES, ids=lambda case: case.name)
def test_a_malformed_file_of_a_run_is_a_sentence(case, workdir):
    case.spoil(workdir)
    with untouched(workdir), pytest.raises(InputError) as caught:
        _go_on(workdir)
    assert_sentence(str(caught.value), *case.refused)


def test_what_is_half_a_line_stays_apart_from_the_lines_after_it(workdir):
    (workdir / log.METRICS).write_text('{"step": 3, "lo')
    _go_on(workdir)
    assert {LATEST + 1, LATEST + 2} <= _losses(workdir).keys()


def test_only_a_whole_checkpoint_is_exported(workdir):
    assert checkpoints.find(workdir, "best") == BEST
    flip(workdir / "checkpoints" / "20" / "position" / "metadata")
    assert checkpoints.find(workdir, "latest") == LATEST
    assert checkpoints.find(workdir, "10") == 10
    for which in ("20", "best"):  # whether 20 is the best cannot be known
        with untouched(workdir), pytest.raises(InputError) as caught:
            checkpoints.find(workdir, which)
        assert_sentence(str(caught.value), "checkpoint 20", "is damaged", "by its step")
    for which in ("40", "worst", "", "-1", "\u00b2", "9" * 5000):
        with pytest.raises(InputError, match="there are 10, 20, 30"):
            checkpoints.find(workdir, which)


def test_a_checkpoint_that_is_set_aside_replaces_no_other(workdir, capsys):
    shutil.copytree(workdir / "checkpoints" / "20", workdir / "damaged" / "30")
    flip(workdir / "checkpoints" / "30" / "digests.json")
    with untouched(workdir / "damaged", but=[workdir / "damaged" / "30-2"]):
        _go_on(workdir, resume="last_whole")
    assert "damaged/30-2" in capsys.readouterr().out


def test_digests_cover_every_file_that_is_restored(run):

    for step in STEPS:
        checkpoint = run / "checkpoints" / str(step)
        written = {
            p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file()
        }
        digested = set(json.loads((checkpoint / "digests.json").read_text()))
        assert written - digested <= {"digests.json", "_CHECKPOINT_METADATA", "commit_success.txt"}
        assert {name.split("/")[0] for name in digested} == {"state", "position", "metrics"}


def test_restored_arrays_are_those_that_were_saved(workdir):
    task = toy.task()
    state = checkpoints.restore_state(workdir, LATEST, task.shapes, task.shardings)
    assert int(state.step) == LATEST
    assert np.isfinite(state.weights["kernel"]).all()
