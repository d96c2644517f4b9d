"""What OpenAPI promises, against requests that schemathesis makes up."""

import os
import subprocess
import sys

import pytest

from .processes import ROOT, STAND_IN, served

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")

# Not those of wrong and right data: bytes that are no image are right by the schema, and refused;
# routes without an upload overlook parameters that they do not know.
_CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance", "unsupported_method"),
)


@pytest.mark.slow
def test_every_answer_is_one_that_openapi_names(tmp_path):
    """No fault of the service, and no status, header or content that is not described."""
    pytest.importorskip("schemathesis", reason="pip install schemathesis")
    with served("-c", STAND_IN, "0") as service:
        run = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run"),
                *(f"{service.address}/openapi.json", "--checks", ",".join(_CHECKS)),
                *("--max-examples", "60", "--seed", "1", "--no-color"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "SCHEMATHESIS_HOOKS": "tests.serving.fuzz_uploads",
            },
        )
    print(run.stdout[-6000:], run.stderr[-2000:])
    assert run.returncode == 0
