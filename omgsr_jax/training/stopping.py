"""SIGTERM and Ctrl-C: a run saves and stops after the step that is under way, or ends at once."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils

STOPPED = 3  # the exit code of a run that can go on
_KINDS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """A question to ask after each step: whether to save and stop now.

    Until it is asked first there is nothing to save, and a signal ends the process, also in the
    minutes in which XLA compiles the step. With several processes, they agree on the step through
    JAX's preemption service, and none ends before it.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    asked: list[int] = []
    stepping = threading.Event()

    def requested(step: int) -> bool:
        stepping.set()
        return bool(asked)

    before = {kind: signal.signal(kind, lambda number, _: asked.append(number)) for kind in _KINDS}
    try:
        with _watched(stepping):
            yield requested
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextmanager
def _watched(stepping: threading.Event) -> Iterator[None]:
    """A thread that hears of signals at once: handlers in Python wait until XLA has compiled."""
    heard, told = socket.socketpair()
    told.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(heard, stepping), daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        told.close()
        watcher.join()
        heard.close()


def _watch(heard: socket.socket, stepping: threading.Event) -> None:
    while numbers := heard.recv(64):
        if not stepping.is_set() and not {*_KINDS}.isdisjoint(numbers):
            print("stopped before a step was done; the same command goes on from there")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(STOPPED)
