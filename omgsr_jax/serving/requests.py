"""What a request holds, read with suspicion: its body is bounded while it is read, and in time."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InputError
from .asked import NAMES, Asked
from .limits import Limits
from .refusals import RefusedError, unusable

HAS_LEFT = 499  # the status in the log of a client that did not wait
_FIELD_BYTES = 1000
_READ_ON_SECONDS = 5

_Any = TypeVar("_Any")


async def read(request: Request, limits: Limits) -> tuple[bytes, Asked]:
    """The upload, and what is asked for: in the query, or in the fields of a form."""
    try:
        async with asyncio.timeout(limits.upload_seconds):
            given = _once(request.query_params.multi_items())
            if request.headers.get("content-type", "").startswith("multipart/form-data"):
                data, fields = await _form(request)
                given = _once([*given.items(), *fields])
            else:
                data = await request.body()
    except TimeoutError:
        sentence = f"the upload was not there within {limits.upload_seconds:g} seconds"
        raise RefusedError(408, sentence) from None
    except ClientDisconnect:
        raise RefusedError(HAS_LEFT, "the client has left") from None
    if not data:
        raise RefusedError(400, "the image is empty; expected its bytes, or a form with a file")
    try:
        return data, Asked.of(given)
    except InputError as error:
        raise unusable(error) from error


async def _form(request: Request) -> tuple[bytes, list[tuple[str, str]]]:
    data, fields = b"", []
    form = request.form(max_files=1, max_fields=len(NAMES), max_part_size=_FIELD_BYTES)
    async with form as found:
        for name, value in found.multi_items():
            if isinstance(value, UploadFile):
                data = await value.read()
            else:
                fields.append((name, value))
    return data, fields


def _once(items: list[tuple[str, str]]) -> dict[str, str]:
    found = dict(items)
    if len(found) < len(items):
        names = [name for name, _ in items]
        twice = next(name for name in names if names.count(name) > 1)
        raise RefusedError(422, f"{twice[:40]!r} is given more than once")
    return found


async def unless_left(request: Request, work: Coroutine[Any, Any, _Any]) -> _Any:
    """What `work` gives; it is stopped when the client leaves. The body must have been read."""
    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RefusedError(HAS_LEFT, "the client has left")
        return task.result()
    finally:
        task.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        """More of the body, which nobody has asked for."""


class BoundedBodies:
    """Refuses bodies that are too large: by their header, or else while they come.

    What of a body is left when the answer is there is read first, within these bounds: a client
    that is still writing would otherwise never see the answer.
    """

    def __init__(self, app: ASGIApp, most_bytes: int):
        self._app, self._most = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self._most, _declared(scope))
        answer = _after(body, send)
        await self._app(scope, body.receive, answer)


class _Body:
    def __init__(self, receive: Receive, most: int, declared: int):
        self._receive, self._most, self._declared = receive, most, declared
        self._read = 0
        self._is_whole = declared == 0

    async def receive(self) -> Message:
        if self._declared > self._most:
            raise self._too_large()
        message = await self._next()
        if self._read > self._most:
            raise self._too_large()
        return message

    async def read_on(self) -> None:
        try:
            async with asyncio.timeout(_READ_ON_SECONDS):
                while not self._is_whole and self._read <= self._most:
                    await self._next()
        except TimeoutError:
            return

    async def _next(self) -> Message:
        message = await self._receive()
        self._read += len(message.get("body", b""))
        self._is_whole = self._is_whole or not message.get("more_body", False)
        return message

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"the upload has more than {self._most >> 20} MiB")


def _after(body: _Body, send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            await body.read_on()
        await send(message)

    return answer


def _declared(scope: Scope) -> int:
    """The body's bytes as the client says; -1 where it does not."""
    headers = dict(scope["headers"])
    text = headers.get(b"content-length", b"")
    if text.isdigit():
        return int(text)
    return -1 if b"transfer-encoding" in headers else 0
