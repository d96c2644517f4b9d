"""Where the seconds of a run went, over all its starts."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from omgsr_jax.training import goodput, loop
from omgsr_jax.training.goodput import Goodput
from tests.training import toy


@pytest.fixture
def clock(monkeypatch):
    """Time passes when a test says so."""
    clock = SimpleNamespace(now=1000.0)
    for name in ("perf_counter", "monotonic", "time"):
        setattr(clock, name, lambda: clock.now)
    monkeypatch.setattr(goodput, "time", clock)
    return clock


def _spend(account, clock, **seconds):
    for kind, length in seconds.items():
        with account.spending(kind):
            clock.now += length


def test_every_second_is_of_one_kind(tmp_path, clock):
    account = Goodput(tmp_path)
    clock.now += 4
    account.turn_to("step")
    _spend(account, clock, data=1, compiling=30)
    clock.now += 65
    found = account.scalars()
    assert found == {
        "goodput/starting": 4, "goodput/step": 65, "goodput/data": 1, "goodput/compiling": 30,
    }  # fmt: skip
    assert account.summary() == (
        "goodput 65.0% of 100.0 s: step 65.0 s, compiling 30.0 s, starting 4.0 s, data 1.0 s"
    )


def test_what_is_repeated_is_lost_and_the_account_survives(tmp_path, clock):
    first = Goodput(tmp_path)
    first.resumed(0)
    _spend(first, clock, step=10, data=2)
    first.saved(10)
    _spend(first, clock, step=5, data=1)
    first.saved(20)  # it was still being written when the process was killed
    _spend(first, clock, step=4)
    first.write()
    clock.now += 50
    second = Goodput(tmp_path)
    _spend(second, clock, restoring=3)
    second.resumed(10)
    assert second.seconds == {
        "starting": 0, "restoring": 3, "step": 10, "data": 2, "lost": 10, "away": 50,
    }  # fmt: skip
    second.write()
    third = Goodput(tmp_path)
    third.resumed(0)  # all of its checkpoints have been deleted
    assert third.seconds["lost"] == 22
    assert third.seconds["step"] == 0


def test_it_is_written_now_and_then(tmp_path, clock):
    account = Goodput(tmp_path)
    account.write(soon=True)
    assert not (tmp_path / "goodput.json").exists()
    clock.now += 11
    account.write(soon=True)
    assert json.loads((tmp_path / "goodput.json").read_text())["seconds"] == {"starting": 11}


@pytest.mark.parametrize("content", ["", "[]", '{"seconds": {"step": "long"}}', '{"seconds": {}}'])
def test_an_account_that_cannot_be_read_is_begun_anew(tmp_path, content):
    (tmp_path / "goodput.json").write_text(content)
    assert Goodput(tmp_path).seconds == {}


def test_a_run_tells_it_at_the_end_and_after_a_failure(tmp_path, capsys):
    def spoil(batch):
        batch["x"][2] = np.nan

    with pytest.raises(loop.NotFiniteError):
        toy.run(tmp_path, 15, at=13, do=spoil)
    toy.run(tmp_path, 15)
    found = json.loads((tmp_path / "goodput.json").read_text())["seconds"]
    assert found["lost"] > 0
    assert {"starting", "restoring", "compiling", "data", "step", "checkpoint"} < found.keys()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("goodput ")]
    assert len(said) == 2
    assert "lost" in said[1]
