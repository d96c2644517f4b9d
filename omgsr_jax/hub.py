"""The Hugging Face hub: only the files that are asked for, each fetched once.

They lie where huggingface_hub keeps its own (HF_HOME, HF_HUB_CACHE), so that its tools and other
libraries share them. A download that was cut off goes on where it stopped. huggingface_hub does not
do that from one process to the next, so large files are fetched here, into their place in its
cache.

Without the hub, what is in the cache is used, and an error says what is missing there.
"""

import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .descriptions import first_line, several
from .errors import InputError
from .files import write_text

_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAIN = "main"
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_INSTALL = "`pip install 'omgsr-jax[hub]'`"


class UnavailableError(InputError):
    """A repository, or a file of it, that cannot be had. A mirror of it may do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. Git's large files are known by their sha256, the others are small."""

    bytes: int
    sha256: str | None


@dataclass(frozen=True)
class Repository:
    """A repository at one commit, or what the cache holds of it.

    Attributes:
        name: owner/name.
        revision: what was asked for: a branch, a tag or a commit.
        commit: of that revision.
        cache: the repository's folder in the cache.
        files: what there is, by name.
        closed: why nothing can be fetched; None where the hub has answered.
    """

    name: str
    revision: str
    commit: str
    cache: Path
    files: Mapping[str, RemoteFile]
    closed: str | None = None

    @property
    def folder(self) -> Path:
        """Where the files are, or will be."""
        return self.cache / "snapshots" / self.commit

    def fetch(self, names: Iterable[str]) -> Path:
        """The folder, which holds the files of these names from now on."""
        wanted = sorted({name for name in names if not (self.folder / name).is_file()})
        if lacking := [name for name in wanted if name not in self.files]:
            raise self._lacks(lacking)
        with _explained(self.name):
            if wanted:
                self._download(wanted)
            if self.closed is None and self.folder.is_dir():
                self._note_commit()
        return self.folder

    def _lacks(self, names: list[str]) -> UnavailableError:
        if self.closed is None:
            return UnavailableError(f"{self.name} on the hub has no {several(names)}")
        return UnavailableError(
            f"{self.name} cannot be fetched: {self.closed}. In the hub's cache, {self.cache}, "
            f"there is no {several(names)}."
        )

    def _download(self, names: list[str]) -> None:
        """Small files first: whether a gated repository is open is known after one of them."""
        hub = _client(self.name)
        self._require_space(names)
        for name in sorted(names, key=lambda name: self.files[name].bytes):
            if (digest := self.files[name].sha256) is not None:
                self._fetch_large(hub, name, digest)
            # Puts the file under its name; a large one is not fetched again.
            hub.hf_hub_download(self.name, name, revision=self.commit)

    def _note_commit(self) -> None:
        """As huggingface_hub does: files of a branch or a tag are found without the hub, too."""
        noted = self.cache / "refs" / self.revision
        if self.revision != self.commit and _content(noted) != self.commit:
            with suppress(InputError):  # a cache that is only read
                write_text(noted, self.commit)

    def _fetch_large(self, hub: ModuleType, name: str, digest: str) -> None:
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import WeakFileLock, build_hf_headers

        blob = self.cache / "blobs" / digest
        partial = blob.with_name(f"{digest}.incomplete")
        lock = self.cache.parent / ".locks" / self.cache.name / f"{digest}.lock"
        for path in (blob, lock):
            path.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if blob.is_file():
                return
            if _size(partial) > self.files[name].bytes:
                partial.unlink()
            with partial.open("ab") as file:
                http_get(
                    hub.hf_hub_url(self.name, name, revision=self.commit),
                    file,
                    resume_size=file.tell(),
                    headers=build_hf_headers(),
                    expected_size=self.files[name].bytes,
                    displayed_filename=name,
                )
            if _sha256(partial) != digest:
                partial.unlink()
                raise UnavailableError(
                    f"{name} of {self.name} was damaged on its way: its sha256 is not the one that "
                    "the hub announces. Run the command again."
                )
            partial.rename(blob)

    def _require_space(self, names: list[str]) -> None:
        files = [self.files[name] for name in names]
        begun = [_size(self.cache / "blobs" / f"{file.sha256}.incomplete") for file in files]
        needed = sum(file.bytes for file in files) - sum(begun)
        self.cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.cache).free
        if free < needed:
            raise InputError(
                f"{self.name} needs {needed / 1e9:.1f} GB in the hub's cache, {self.cache}, where "
                f"{free / 1e9:.1f} GB are free. HF_HUB_CACHE names another place."
            )


def is_name(text: str) -> bool:
    """Whether it could be a repository: owner/name, or owner/name@revision."""
    return _NAME.fullmatch(text) is not None


def repository(text: str) -> Repository:
    """The repository owner/name, or owner/name@revision: its files are listed, not fetched."""
    hub = _client(text)
    from huggingface_hub import constants

    name, _, revision = text.partition("@")
    revision = revision or _MAIN
    cache = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    try:
        found = hub.HfApi().model_info(name, revision=revision, files_metadata=True)
    except Exception as error:  # of dozens of types
        return _from_cache(name, revision, cache, _reason(name, error))
    files = {one.rfilename: _remote_file(one) for one in found.siblings}
    return Repository(name, revision, found.sha, cache, files)


def _remote_file(listed: Any) -> RemoteFile:
    digest = listed.lfs.sha256 if listed.lfs else ""
    return RemoteFile(listed.size or 0, digest if _SHA256.fullmatch(digest) else None)


def _from_cache(name: str, revision: str, cache: Path, closed: str) -> Repository:
    commit = _content(cache / "refs" / revision) or revision
    folder = cache / "snapshots" / commit
    if not folder.is_dir():
        raise UnavailableError(
            f"{name} cannot be fetched: {closed}. There is no {revision} of it in the hub's cache, "
            f"{cache}, either."
        )
    files = {
        path.relative_to(folder).as_posix(): RemoteFile(path.stat().st_size, None)
        for path in folder.rglob("*")
        if path.is_file()
    }
    return Repository(name, revision, commit, cache, files, closed)


def _client(name: str) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise UnavailableError(
            f"{name} is not a local folder, and fetching it from the hub needs {_INSTALL}"
        ) from None
    return huggingface_hub


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of dozens of types
        raise UnavailableError(f"{name} cannot be fetched: {_reason(name, error)}") from error


def _reason(name: str, error: Exception) -> str:
    """Why something cannot be had, in words that say what to do."""
    from huggingface_hub import errors

    seen: BaseException | None = error
    while seen is not None:  # what went wrong first may be wrapped
        if isinstance(seen, errors.OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set"
        if isinstance(seen, errors.GatedRepoError):
            return f"accept its licence at https://huggingface.co/{name}, and {_LOG_IN}"
        if isinstance(seen, errors.RevisionNotFoundError):
            return "the hub has no such revision of it"
        if isinstance(seen, errors.RepositoryNotFoundError):
            return f"the hub has no such model, or it is private; for a private one, {_LOG_IN}"
        seen = seen.__cause__
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        return f"the hub's cache cannot be written ({error})"
    return f"the hub could not be reached ({type(error).__name__}: {first_line(error)})"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
