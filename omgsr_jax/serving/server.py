"""The service as a process: it listens while the model is prepared, and ends in order."""

import asyncio
import socket
import sys
import time
from types import FrameType
from typing import Any

import uvicorn

from .. import assets
from ..errors import InputError
from ..inference.layout import devices_named
from ..inference.loading import load
from ..inference.upscaler import Upscaler
from .app import create_app
from .jobs import Jobs
from .limits import Limits
from .service import Service

_LOOK_SECONDS = 0.1
_CLOSE_SECONDS = 30  # for results that are being sent


def serve(
    model: str = assets.NANO,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    device: str | None = None,
    **more: Any,
) -> None:
    """Serves a model until SIGTERM or Ctrl-C, and finishes what is accepted. A second one ends at
    once.

    Args:
        model: as for `load`.
        port: 0 takes one that is free.
        device: such as gpu:0; by default all local ones.
        more: of `create_app` (token, stream, embedded_by) and `load` (precision, batch, ...).
    """
    limits = limits or Limits()
    of_app = {key: more.pop(key) for key in ("token", "stream", "embedded_by") if key in more}

    def prepare() -> Upscaler:
        devices = devices_named(device) if device else None
        loaded = load(model, notify=_tell, devices=devices, **more)
        loaded.warm(limits.sizes(loaded.process_size))
        say("ready")
        return loaded

    name = model.rstrip("/").rpartition("/")[2]
    app = create_app(prepare, name=name, limits=limits, **of_app)
    with _listening(host, port) as listening:
        host, port = listening.getsockname()[:2]
        say(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=_CLOSE_SECONDS
        )
        server = _Server(config, app.state.service, app.state.jobs)
        asyncio.run(server.run_on(listening))
    if failure := app.state.service.batcher.failure:
        raise failure


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _tell(what: str, seconds: float | None) -> None:
    if seconds is not None:
        say(f"{what}: {seconds:.1f} s")


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}, port {port}: {error}") from error


class _Server(uvicorn.Server):
    """Stops when all that was accepted is answered, and finished jobs are fetched or too old."""

    def __init__(self, config: uvicorn.Config, service: Service, jobs: Jobs):
        super().__init__(config)
        self._service, self._jobs = service, jobs

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.is_stopping:
            self.should_exit = self.force_exit = True
        self._service.is_stopping = True

    async def run_on(self, listening: socket.socket) -> None:
        watching = asyncio.create_task(self._watch())
        await self.serve(sockets=[listening])
        await watching

    async def _watch(self) -> None:
        idle_since = time.monotonic()
        while not self.should_exit:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._service.accepted or not self._service.is_stopping:
                idle_since = time.monotonic()
            waited = time.monotonic() - idle_since > self._service.limits.grace_seconds
            is_done = self._service.is_stopping and not self._service.accepted
            if self._service.batcher.failure or (is_done and (waited or not self._jobs.unfetched)):
                self.should_exit = True
