"""What OpenAPI says of the routes, beside what FastAPI sees by itself."""

from typing import Any

from . import asked
from .refusals import MEANINGS

_IMAGE = {"type": "string", "format": "binary"}
_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "One sentence."}},
    "required": ["error"],
}
_EXAMPLES = {
    400: "the image is empty; expected its bytes, or a form with a file",
    413: "the upload has more than 32 MiB",
    415: "the image is not an image that can be read here",
    422: "scale must be within 1 .. 8, not 9",
    429: "too many images wait already; try again later",
    503: "the model is being prepared",
}
_SOON = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
_RESULT_HEADERS = {
    "Omgsr-Queue-Seconds": ("number", "How long the image waited."),
    "Omgsr-Compute-Seconds": ("number", "What its batch took."),
    "Omgsr-Batch": ("integer", "Images of this batch."),
    "Omgsr-Size": ("string", "Width and height of the result."),
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Of a route; 401 may come from any."""
    return {status: _refusal(status) for status in (*statuses, 401)}


def _refusal(status: int) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": _ERROR}
    if status in _EXAMPLES:
        content["example"] = {"error": _EXAMPLES[status]}
    headers = {"Retry-After": _SOON} if status in (429, 503) else {}
    return {
        "description": MEANINGS[status],
        "content": {"application/json": content},
        "headers": headers,
    }


def picture() -> dict[str, Any]:
    """A result as a file."""
    kinds = sorted({asked.media_type(f".{name}") for name in asked.formats()})
    headers = {
        name: {"description": meaning, "schema": {"type": kind}}
        for name, (kind, meaning) in _RESULT_HEADERS.items()
    }
    return {
        "description": "The result.",
        "content": {kind: {"schema": _IMAGE} for kind in kinds},
        "headers": headers,
    }


def upload() -> dict[str, Any]:
    """An image, and what is asked for."""
    parameters = [
        {"name": name, "in": "query", "schema": schema, "description": schema.pop("description")}
        for name, schema in asked.schema().items()
    ]
    form = {
        "type": "object",
        "properties": {"image": _IMAGE, **asked.schema()},
        "required": ["image"],
        "additionalProperties": False,
    }
    content = {
        "multipart/form-data": {"schema": form},
        "application/octet-stream": {"schema": _IMAGE},
        "image/png": {"schema": _IMAGE},
        "image/jpeg": {"schema": _IMAGE},
    }
    body = {"description": "An image file.", "required": True, "content": content}
    return {"parameters": parameters, "requestBody": body}


def job_id(example: str = "xq0aTz5lY3kJ1bWe") -> dict[str, Any]:
    return {"description": "What POST /v1/jobs gave.", "examples": [example]}
