"""`omgsr serve` as a process, with a model that is a program of a test's."""

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Serves `Enlarging`, which waits a little for each batch.
STAND_IN = """
import sys, time
from omgsr_jax.serving import server
from omgsr_jax.serving.limits import Limits
from tests.serving.conftest import Enlarging, LARGEST
class Slow(Enlarging):
    def restore(self, *given):
        time.sleep(float(sys.argv[1]))
        return super().restore(*given)
    def warm(self, sizes):
        pass
server.load = lambda *_, **__: Slow()
server.serve("stand-in", port=0, limits=Limits(largest=LARGEST, grace_seconds=5))
"""


@dataclass
class Served:
    process: subprocess.Popen
    address: str
    log: Path

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        request = urllib.request.Request(self.address + path, body)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@contextmanager
def served(*command: str, **environment: str) -> Iterator[Served]:
    """A service that is ready; it is killed if it has not ended."""
    with tempfile.TemporaryDirectory() as folder:
        says, log = Path(folder) / "stderr", Path(folder) / "stdout"
        with says.open("w") as err, log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            )
            try:
                yield Served(process, _address(process, says), log)
            finally:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen, says: Path) -> str:
    for _ in range(3000):
        text = says.read_text()
        if "ready" in text:
            return re.search(r"listening on (\S+)", text)[1]
        if process.poll() is not None:
            raise AssertionError(text)
        time.sleep(0.1)
    raise AssertionError(f"it does not get ready:\n{text}")
