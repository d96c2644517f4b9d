"""The application: routes, page and what lies around them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TextIO

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from .. import __version__
from . import log, openapi, page, rest
from .access import Access
from .batcher import Model
from .jobs import Jobs
from .limits import Limits
from .metrics import MEDIA_TYPE, Metrics
from .refusals import RefusedError
from .requests import BoundedBodies
from .service import Service

_SUMMARY = "Restores and enlarges images in one step of a diffusion model."


def create_app(
    prepare: Callable[[], Model],
    *,
    name: str,
    limits: Limits | None = None,
    token: str | None = None,
    stream: TextIO | None = sys.stdout,
    embedded_by: Sequence[str] = (),
) -> FastAPI:
    """The service as an ASGI application; `app.state` has its `service` and `jobs`.

    Args:
        prepare: loads a model and compiles all that it takes, in a thread that owns it from then
            on.
        name: of the model, as the page shows it.
        limits: what is accepted.
        token: without it nobody is served.
        stream: where the log goes.
        embedded_by: sites that may show the page in a frame.
    """
    limits, metrics = limits or Limits(), Metrics()
    service = Service(prepare, limits, metrics)
    jobs = Jobs(limits, service.batcher, stream)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await asyncio.to_thread(service.end)

    app = FastAPI(
        title="omgsr-jax",
        summary=_SUMMARY,
        version=__version__,
        lifespan=life,
        docs_url=None,  # their scripts come from another host
        redoc_url=None,
    )
    app.state.service, app.state.jobs = service, jobs
    app.include_router(rest.router(service, jobs, name))
    app.include_router(page.router(embedded_by))
    _add_health(app, service, metrics)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(HTTPException, _unknown)
    # The last is the outermost.
    app.add_middleware(BoundedBodies, most_bytes=limits.upload_bytes)
    app.add_middleware(Access, token=token)
    app.add_middleware(log.Log, stream=stream, metrics=metrics)
    return app


def _add_health(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/healthz", summary="Whether the process lives", response_class=PlainTextResponse)
    async def healthz() -> str:
        return "alive"

    @app.get(
        "/readyz",
        summary="Whether images are accepted",
        response_class=PlainTextResponse,
        responses=openapi.refusals(503),
    )
    async def readyz() -> str:
        service.require_ready()
        return "ready"

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=PlainTextResponse,
        responses=openapi.refusals(),
    )
    async def figures() -> Response:
        return Response(metrics.text(), media_type=MEDIA_TYPE)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    log.note(request.scope, error=error.sentence)
    return log.answer(error)


async def _unknown(request: Request, error: Exception) -> Response:
    """What Starlette says of paths, methods and forms."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)
