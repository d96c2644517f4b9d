"""Systems in processes of their own, which answer one question after the other.

A system that hangs or dies is lost by itself. One that waits for a question uses no core.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


class Lost(Exception):  # noqa: N818
    """A system's process has ended, or its time is over."""


class Failed(Exception):  # noqa: N818
    """A system could not do what it was asked for; it goes on."""


class Worker:
    """Args:
    name: of the system, for messages.
    serve: what the process runs: called with `args` and the connection to answer through.
    limit_s: how many seconds may be waited for its answers, all together.
    """

    def __init__(
        self, name: str, serve: Callable[..., None], *args: Any, limit_s: float = math.inf
    ):
        self.name, self._left, self._limit = name, limit_s, limit_s
        context = get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_alone, args=(serve, *args, there))
        self._process.start()
        there.close()  # so that the end of the process is the end of what can be read

    def ask(self, question: Any) -> Any:
        try:
            self._here.send(question)
        except OSError:  # it ended while nobody asked
            raise self._ended() from None
        return self.answer()

    def answer(self) -> Any:
        started = time.perf_counter()
        if not self._here.poll(None if math.isinf(self._left) else max(0.0, self._left)):
            self._left = 0.0
            raise Lost(f"{self.name} was stopped: its {self._limit:g} s are over")
        try:
            answer = self._here.recv()
        except (EOFError, ConnectionResetError):
            raise self._ended() from None
        finally:
            self._left -= time.perf_counter() - started
        if isinstance(answer, Failed):
            raise answer
        return answer

    def _ended(self) -> Lost:
        self._process.join(5)
        return Lost(f"{self.name}: its process ended with code {self._process.exitcode}")

    def close(self) -> None:
        """Ends the process and those that it has started."""
        self._here.close()
        self._process.join(0 if self._left <= 0 else 10)
        if self._process.pid and self._process.is_alive():
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it had no time to lead a group
                self._process.kill()
        self._process.join()


@contextmanager
def worker(name: str, serve: Callable[..., None], *args: Any, **how: Any) -> Iterator[Worker]:
    one = Worker(name, serve, *args, **how)
    try:
        yield one
    finally:
        one.close()


def _alone(serve: Callable[..., None], *args: Any) -> None:
    os.setsid()  # to be ended with all that it starts
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    serve(*args)


def _end_with(parent: int) -> None:
    """Ends this process and what it has started once the one that asks has ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


def serve_methods(system: Any, parent: Connection) -> None:
    """Answers (method, arguments) with what the method returns, or with how it failed."""
    while True:
        try:
            method, *arguments = parent.recv()
        except EOFError:
            return
        try:
            answer = getattr(system, method)(*arguments)
        except Exception as error:  # of somebody else's compiler, too
            first = (str(error) or "no message").strip().splitlines()[0]
            answer = Failed(f"{type(error).__name__}: {first[:300]}")
        parent.send(answer)
