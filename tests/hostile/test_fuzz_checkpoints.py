"""Flipped bytes and cut files anywhere in a work directory: the right arrays, or a sentence.

By hand, with N cases and the count of each answer:

    python -m tests.hostile.test_fuzz_checkpoints N
"""

import collections
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omgsr_jax.errors import InputError
from omgsr_jax.training import log, work_directory
from omgsr_jax.training.config import RunConfig
from tests.hostile.judge import assert_sentence
from tests.training import toy

_STEPS, _LATEST = 20, 20
_RUN = RunConfig(steps=_STEPS, log_every=1, save_every=10, keep=2)


class Run:
    """A small run, its files, and what a reader has to find in them."""

    def __init__(self, folder):
        self.workdir = Path(folder) / "run"
        toy.run(self.workdir, _STEPS)
        names = sorted(path for path in self.workdir.rglob("*") if path.is_file())
        self.contents = {
            path: path.read_bytes() for path in names if not path.name.startswith("events.")
        }
        self.task = toy.task()
        self.config = json.loads((self.workdir / work_directory.CONFIG).read_text())
        self.right = self._restored()

    def read_with(self, path, content):
        """What comes of reading the run when one file has another content."""
        path.write_bytes(content)
        try:
            log.read(self.workdir)
            return self._answer()
        finally:
            self._put_back(path)

    def _answer(self):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                found = self._restored()
        except InputError as error:
            assert_sentence(str(error))
            return "a sentence"
        assert found == self.right
        return "the right arrays"

    def _restored(self):
        """As a run that goes on reads it."""
        with work_directory.opened(self.workdir, self.config, _RUN) as saved:
            task = self.task
            _, state = saved.resume(task.shapes, task.shardings, task.batches)
        return (
            int(state.step),
            np.asarray(state.weights["kernel"]).tobytes(),
            task.batches.get_state()["next_index"],
        )

    def _put_back(self, changed):
        """An earlier checkpoint that is damaged has been moved away."""
        for moved in self.workdir.glob("damaged/*"):
            shutil.rmtree(moved)
        for path, content in self.contents.items():
            if path == changed or not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def _changed(content, kind, where, value):
    """One byte flipped, the end cut off, a byte put in, or a part overwritten with zeros."""
    at = int(where * len(content))
    if kind == "cut":
        return content[:at]
    if kind == "zeros":
        return content[:at] + bytes(len(content[at : at + 64])) + content[at + 64 :]
    if kind == "put in":
        return content[:at] + bytes([value]) + content[at:]
    flipped = bytes(byte ^ value for byte in content[at : at + 1])
    return content[:at] + flipped + content[at + 1 :]


_KINDS = ("flip", "cut", "zeros", "put in")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("fuzz"))


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    which=st.integers(0, 10**6),
    kind=st.sampled_from(_KINDS),
    where=st.floats(0, 1, exclude_max=True),
    value=st.integers(1, 255),
)
def test_a_changed_byte_gives_the_right_arrays_or_a_sentence(run, which, kind, where, value):
    path = sorted(run.contents)[which % len(run.contents)]
    run.read_with(path, _changed(run.contents[path], kind, where, value))


def main(cases):
    rng, counts = random.Random(0), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        paths = sorted(run.contents)
        for case in range(cases):
            path, kind = paths[case % len(paths)], rng.choice(_KINDS)
            content = _changed(run.contents[path], kind, rng.random(), rng.randrange(1, 256))
            counts[kind, run.read_with(path, content)] += 1
    for (kind, answer), count in sorted(counts.items()):
        print(f"{kind}: {answer} {count}")
    print(f"{sum(counts.values())} cases")


if __name__ == "__main__":
    main(int(sys.argv[1]))
