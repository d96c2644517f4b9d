"""Who may ask: whoever knows the token, if there is one; and no page of another site.

Programs send the token as `Authorization: Bearer TOKEN`. Browsers ask for a name and a password:
any name, and the token.
"""

import base64
import binascii
import hmac
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .refusals import RefusedError

OPEN = ("/healthz", "/readyz")  # for those who watch the service
_SAFE = ("GET", "HEAD")


class Access:
    def __init__(self, app: ASGIApp, token: str | None, open_paths: Collection[str] = OPEN):
        self._app, self._open = app, open_paths
        self._token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._open:
            self._check(Headers(scope=scope), scope["method"])
        await self._app(scope, receive, send)

    def _check(self, headers: Headers, method: str) -> None:
        # A browser adds the password it knows to whatever another site's page makes it send.
        if method not in _SAFE and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise RefusedError(403, "a page of another site has sent this; it is not served")
        if self._token is None:
            return
        if not hmac.compare_digest(_given(headers.get("authorization", "")), self._token):
            asks_a_person = "text/html" in headers.get("accept", "")
            scheme = 'Basic realm="omgsr", charset="UTF-8"' if asks_a_person else "Bearer"
            sentence = "the token is missing or wrong; send Authorization: Bearer TOKEN"
            raise RefusedError(401, sentence, {"WWW-Authenticate": scheme})


def _given(authorization: str) -> bytes:
    """The token that a header holds."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
