"""The page: files of this package, and no others, by names that are known."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

_FOLDER = Path(__file__).parent / "static"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/service.js": ("service.js", "text/javascript; charset=utf-8"),
    "/zip.js": ("zip.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def router(embedded_by: Sequence[str] = ()) -> APIRouter:
    """`embedded_by`: sites that may show the page in a frame."""
    pages = APIRouter(include_in_schema=False)
    headers = {
        "Content-Security-Policy": _policy(embedded_by),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    for path, (name, kind) in _FILES.items():
        pages.add_api_route(path, _file(_FOLDER / name, kind, headers), methods=["GET", "HEAD"])
    return pages


def _policy(embedded_by: Sequence[str]) -> str:
    """The page asks nobody but its own service; results are shown from memory."""
    frames = " ".join(embedded_by) or "'none'"
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors {frames}"
    )


def _file(path: Path, kind: str, headers: dict[str, str]) -> Callable[[], Awaitable[Response]]:
    content = path.read_bytes()

    async def file() -> Response:
        return Response(content, media_type=kind, headers=headers)

    return file
