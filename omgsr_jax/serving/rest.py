"""The routes that take images and give results."""

from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from . import asked, log, openapi
from .jobs import Jobs
from .refusals import RefusedError, unavailable
from .requests import read, unless_left
from .service import Answer, Service

_UPLOAD = (400, 403, 408, 413, 415, 422, 429, 500, 503)
_ASK_AGAIN = "1"  # seconds
_Id = Annotated[str, Path(**openapi.job_id())]


class JobState(BaseModel):
    """How far a job is."""

    id: str = Field(examples=["xq0aTz5lY3kJ1bWe"])
    status: str = Field(examples=["running"], description="queued, running, done or failed")
    before: int | None = Field(None, description="Images that come before it.")
    share: float | None = Field(None, description="0 .. 1: of its work that is done.")
    stage: str | None = Field(None, description="What is being computed.")
    seconds_left: float | None = Field(None, description="About.")
    result: str | None = Field(None, description="Where the result is.")
    size: str | None = Field(None, description="Width and height of the result.")
    queue_seconds: float | None = None
    compute_seconds: float | None = None
    batch: int | None = Field(None, description="Images that were computed together.")
    notes: list[str] | None = Field(None, description="What the result lacks of the image.")
    error: str | None = Field(None, description="Why the job failed.")
    error_status: int | None = Field(None, description="The status that /v1/upscale would give.")


class About(BaseModel):
    """What is served."""

    model: str
    color: str = Field(description="The model's own choice of colours.")
    colors: list[str]
    formats: list[str]
    largest: int = Field(description="Pixels of the longer side of images and results.")
    process_size: int = Field(description="What the model needs on the shorter side.")
    upload_bytes: int


def router(service: Service, jobs: Jobs, name: str) -> APIRouter:
    """`name` is the model's."""
    routes = APIRouter(prefix="/v1")

    @routes.post(
        "/upscale",
        summary="An image, restored and enlarged",
        response_class=Response,
        responses={200: openapi.picture(), **openapi.refusals(*_UPLOAD)},
        openapi_extra=openapi.upload(),
    )
    async def upscale(request: Request) -> Response:
        with service.admitted():
            data, wanted = await read(request, service.limits)
            log.note(request.scope, upload_bytes=len(data))
            answer = await unless_left(request, service.restored(data, wanted))
        log.note(request.scope, **answer.facts)
        return _file(answer)

    @routes.post(
        "/jobs",
        status_code=202,
        summary="The same without waiting for it",
        response_model=JobState,
        response_model_exclude_none=True,
        responses=openapi.refusals(*_UPLOAD),
        openapi_extra=openapi.upload(),
    )
    async def begin(request: Request) -> JSONResponse:
        with ExitStack() as held:
            held.enter_context(service.admitted())
            data, wanted = await read(request, service.limits)
            place = held.pop_all()
        job = jobs.begin(lambda job: service.restored(data, wanted, job.follow), place)
        log.note(request.scope, job=job.id, upload_bytes=len(data))
        headers = {"Location": f"/v1/jobs/{job.id}", "Retry-After": _ASK_AGAIN}
        return JSONResponse(jobs.state(job), 202, headers)

    @routes.get(
        "/jobs/{id}",
        summary="How far a job is",
        response_model=JobState,
        response_model_exclude_none=True,
        responses=openapi.refusals(404, 422),
    )
    async def state(id: _Id) -> dict[str, Any]:
        return jobs.state(jobs.find(id))

    @routes.get(
        "/jobs/{id}/result",
        summary="A job's result",
        response_class=Response,
        responses={200: openapi.picture(), **openapi.refusals(404, 409, 410, 422)},
    )
    async def result(id: _Id) -> Response:
        job = jobs.find(id)
        if job.failure:
            raise RefusedError(410, job.failure.sentence)
        if job.answer is None:
            raise RefusedError(409, "the job is not done yet", {"Retry-After": _ASK_AGAIN})
        job.is_fetched = True
        return _file(job.answer)

    @routes.delete(
        "/jobs/{id}",
        status_code=204,
        summary="Forgets a job, and stops it",
        responses=openapi.refusals(403, 404, 422),
    )
    async def remove(id: _Id) -> Response:
        jobs.remove(id)
        return Response(status_code=204)

    @routes.get("/about", summary="What is served", responses=openapi.refusals(503))
    async def about() -> About:
        model = service.batcher.model
        if model is None:
            raise unavailable("the model is being prepared", 10)
        return About(
            model=name,
            color=model.color,
            colors=list(asked.COLORS),
            formats=asked.formats(),
            largest=max(service.limits.sizes(model.process_size))[0],
            process_size=model.process_size,
            upload_bytes=service.limits.upload_bytes,
        )

    return routes


def _file(answer: Answer) -> Response:
    headers = {f"Omgsr-{_title(name)}": str(value) for name, value in answer.facts.items()}
    return Response(answer.data, media_type=answer.media_type, headers=headers)


def _title(name: str) -> str:
    return "-".join(word.capitalize() for word in name.split("_"))
