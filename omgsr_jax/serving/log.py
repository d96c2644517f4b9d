"""A line of JSON for each request and each job, and the same figures for /metrics."""

import json
import sys
import time
import traceback
from typing import Any, TextIO

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .refusals import RefusedError

_FACTS = "omgsr"  # where a request's scope keeps what its line says besides


def note(scope: Scope, **facts: Any) -> None:
    """Adds to a request's line."""
    scope.setdefault(_FACTS, {}).update(facts)


def write(stream: TextIO | None, **facts: Any) -> None:
    if stream is not None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        print(json.dumps({"time": stamp, **facts}), file=stream, flush=True)


class Log:
    """Around all else: whatever is raised becomes an answer here, so that each has its line."""

    def __init__(self, app: ASGIApp, stream: TextIO | None, metrics: Metrics):
        self._app, self._stream, self._metrics = app, stream, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, sent = time.perf_counter(), _Sent(send)
        note(scope)
        try:
            await self._app(scope, receive, sent)
        except RefusedError as refused:
            note(scope, error=refused.sentence)
            await sent.instead(refused, scope, receive)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            note(scope, error=type(error).__name__)
            fault = RefusedError(500, "a fault of the service; its log says more")
            await sent.instead(fault, scope, receive)
        self._end(scope, sent, time.perf_counter() - started)

    def _end(self, scope: Scope, sent: "_Sent", seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.answered(route, sent.status, seconds)
        client = scope.get("client") or ("", 0)
        write(
            self._stream,
            method=scope["method"],
            path=scope["path"],
            status=sent.status,
            seconds=round(seconds, 4),
            sent_bytes=sent.bytes,
            client=client[0],
            **scope[_FACTS],
        )


class _Sent:
    """What has been sent of an answer."""

    def __init__(self, send: Send):
        self._send = send
        self.status, self.bytes = 0, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self.bytes += len(message.get("body", b""))
        await self._send(message)

    async def instead(self, refused: RefusedError, scope: Scope, receive: Receive) -> None:
        """This answer, unless another one has begun."""
        if not self.status:
            await answer(refused)(scope, receive, self)


def answer(refused: RefusedError) -> JSONResponse:
    return JSONResponse({"error": refused.sentence}, refused.status, refused.headers)
