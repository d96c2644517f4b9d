"""What every hostile case is held to: a clear sentence or the right result, and nothing touched."""

import contextlib
import hashlib
import io
import os
import resource
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from omgsr_jax import cli

_LONGEST_SENTENCE = 600
_LARGE = 2**26


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """The last line that was said: the sentence about what is wrong."""
        lines = self.err.strip().splitlines()
        return lines[-1] if lines else ""


def command(*argv: str | os.PathLike[str]) -> Answer:
    """`omgsr ARGV` in this process. An exception that is no exit fails the test: a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([os.fspath(arg) for arg in argv])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return Answer(code, out.getvalue(), err.getvalue())


def assert_sentence(text: str, *expected: str) -> None:
    """A message for the user: not empty, not endless, and with what the case expects in it."""
    assert text.strip(), "nothing was said"
    assert len(text) <= _LONGEST_SENTENCE, f"{len(text)} characters: {text[:200]} ..."
    missing = [part for part in expected if part not in text]
    assert not missing, f"{missing} not in: {text}"


@contextlib.contextmanager
def little_memory(more: int) -> Iterator[None]:
    """In the block the process may map so many bytes more than it has mapped already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def untouched(*folders: Path, but: Sequence[Path] = ()) -> Iterator[None]:
    """All that lies in `folders` is afterwards as before, and nothing new lies there, `but` ..."""
    before = _contents(folders, but)
    yield
    after = _contents(folders, but)
    changed = sorted(path for path in before if path in after and before[path] != after[path])
    assert not changed, f"changed: {changed}"
    assert not before.keys() - after.keys(), f"gone: {sorted(before.keys() - after.keys())}"
    assert not after.keys() - before.keys(), f"left over: {sorted(after.keys() - before.keys())}"


def _contents(folders: Sequence[Path], but: Sequence[Path]) -> dict[str, str]:
    """Every path below the folders, with what is there. Links are not followed."""
    found = {}
    for folder in folders:
        for top, inner, files in os.walk(folder):
            for name in [*inner, *files]:
                path = Path(top, name)
                if not any(path == one or one in path.parents for one in but):
                    found[os.fspath(path)] = _fingerprint(path)
    return found


def _fingerprint(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"link to {os.readlink(path)}"
    if not stat.S_ISREG(mode):
        return f"kind {stat.S_IFMT(mode):o}"
    if path.stat().st_size > _LARGE:  # a sparse file: not all of its nothing
        with open(path, "rb") as file:
            head = file.read(2**16)
        return f"{path.stat().st_size} bytes of {path.stat().st_mtime_ns}: {head!r}"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
