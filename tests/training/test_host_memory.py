"""A step on a CPU gets the pages of the step before it."""

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Each run of `step` needs 64 MB, 16,384 pages, for what it computes on the way.
_PROGRAM = """
import resource
from omgsr_jax.training import host_memory
if {keep}:
    host_memory.keep()
import jax
import jax.numpy as jnp

step = jax.jit(lambda x: jnp.sin(jnp.outer(x, x)) @ x)
x = jnp.ones(4096)
faults = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries cannot be told")
@pytest.mark.skipif(
    resource.getpagesize() != 4096
    or (_HUGE_PAGES.exists() and "[always]" in _HUGE_PAGES.read_text()),
    reason="counts pages of 4 KB",
)
def test_the_pages_of_a_step_serve_the_next():
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", _PROGRAM.format(keep=keep)],
                cwd=_ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for keep in (True, False)
    )
    assert kept < 1000, "pages are handed out anew"
    assert given_back > 10_000, "the program needs no memory, and shows nothing"
