"""Why a request is not served: a status and one sentence, the same that the command line says."""

from collections.abc import Mapping

from PIL import Image, UnidentifiedImageError

from ..errors import InputError

# What every route may answer, for OpenAPI.
MEANINGS: Mapping[int, str] = {
    400: "The body is empty, or no multipart form with one file.",
    401: "The token is missing or wrong.",
    403: "A page of another site has sent this.",
    404: "There is no such job, or not any more.",
    408: "The upload took too long.",
    409: "The job is not done yet.",
    410: "The job failed; its state says why.",
    413: "The upload has too many bytes or pixels.",
    415: "The upload is not an image of a kind that can be read here.",
    422: "A parameter or the image cannot be used.",
    429: "Too many requests wait. Retry-After says when to come back.",
    500: "The image could not be computed.",
    503: "The model is being prepared, the service is stopping, or the time is over.",
}


class RefusedError(Exception):
    """A request that gets this status, and this sentence."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None):
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
        self.headers = dict(headers or {})


def busy(retry_after: float) -> RefusedError:
    return _later(429, "too many images wait already; try again later", retry_after)


def unavailable(sentence: str, retry_after: float) -> RefusedError:
    return _later(503, sentence, retry_after)


def _later(status: int, sentence: str, seconds: float) -> RefusedError:
    return RefusedError(status, sentence, {"Retry-After": str(max(1, round(seconds)))})


def unusable(error: InputError) -> RefusedError:
    """Something about the request: the upload is no image at all, or too large a one, or else."""
    for kind, status in ((UnidentifiedImageError, 415), (Image.DecompressionBombError, 413)):
        if isinstance(error.__cause__, kind):
            return RefusedError(status, str(error))
    return RefusedError(422, str(error))
