"""Uploads for schemathesis: images, and bytes that are none."""

import schemathesis
from hypothesis import strategies as st

from .conftest import png

_UPLOADS = st.one_of(st.binary(max_size=300), st.sampled_from([png(), png(9, 5, kind="JPEG")]))

for _kind in ("image/png", "image/jpeg", "application/octet-stream"):
    schemathesis.openapi.media_type(_kind, _UPLOADS)
