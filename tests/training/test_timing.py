"""Who waits for whom, and which of several processes is the slowest."""

import socket
from types import SimpleNamespace

import numpy as np
import pytest

from omgsr_jax.data.workers import Workers
from omgsr_jax.training import timing
from omgsr_jax.training.timing import Interval


@pytest.fixture
def clock(monkeypatch):
    """Time passes when a test says so."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def test_an_interval_is_divided_among_data_devices_and_the_rest(clock):
    measured = timing.Clock(None)
    measured.start(10)
    for _ in range(4):
        with measured.waiting_for_data():
            clock.now += 1
        with measured.on_devices():
            clock.now += 5
        clock.now += 2
    assert measured.interval(14) == Interval(step=8, waiting=1, own=3, idle=0)
    measured.start(14)
    assert measured.interval(14) is None


def test_data_wait_for_the_devices_within_the_interval_only(clock, monkeypatch):
    workers = Workers(1)
    monkeypatch.setattr(Workers, "idle", property(lambda self: clock.now / 2))
    measured = timing.Clock(workers)
    measured.start(0)
    clock.now += 8
    assert measured.interval(2).idle == 2


def test_the_first_steps_are_timed_one_by_one_but_the_one_that_compiles(clock):
    steps = timing.FirstSteps()
    for seconds in (60, 3, 2, 4):
        assert steps.to_come
        steps.begin()
        clock.now += seconds
        steps.end(np.zeros(1))
        assert steps.compiled == (seconds == 60)
    assert not steps.to_come
    assert steps.fastest == 2


def test_the_one_that_waits_is_named_with_its_share():
    assert timing.who_waits(Interval(2.0, waiting=0.5, own=0.6, idle=0.1)) == (
        "devices wait for data 25% of the time"
    )
    assert timing.who_waits(Interval(2.0, waiting=0.01, own=0.1, idle=1.4)) == (
        "data wait for the devices 70% of the time"
    )


def test_the_slowest_process_is_named_by_its_host(monkeypatch):
    """Four processes, of which the third has been slowed: its devices wait, and the others' too."""
    hosts = [b"host-a", b"host-b", b"host-c", b"host-d"]
    others = [Interval(0.5, 0.01, 0.02, 0.1), Interval(0.5, 0.01, 0.03, 0.1)]
    slow = Interval(0.5, 0.35, 0.4, 0.0)
    rows = [others[0], others[1], slow, others[0]]

    def gathered(array):
        if array.dtype == np.uint8:
            assert bytes(array).rstrip(b"\0").decode() == socket.gethostname()[:64]
            return np.stack([np.frombuffer(h.ljust(64, b"\0"), np.uint8) for h in hosts])
        np.testing.assert_allclose(array, [0.5, 0.01, 0.02, 0.1], rtol=1e-6)
        return np.float32([[one.step, one.waiting, one.own, one.idle] for one in rows])

    monkeypatch.setattr(timing, "_gathered", gathered)
    processes = timing.Processes()
    everybody = processes.intervals(others[0])
    assert processes.described(everybody) == (
        "data wait for the devices 20% of the time; the slowest is process 2 on host-c: "
        "its devices wait 0.400 s a step, 0.350 s of these for data"
    )
    scalars = timing.scalars(everybody)
    assert scalars["process/slowest"] == 2
    assert scalars["process/2/waiting_for_data"] == pytest.approx(0.35)
    assert scalars["process/3/step"] == 0.5


def test_one_process_alone_is_not_compared():
    processes = timing.Processes()
    everybody = processes.intervals(Interval(1.0, 0.5, 0.5, 0.0))
    assert processes.described(everybody) == "devices wait for data 50% of the time"
    assert timing.scalars(everybody) == {}
