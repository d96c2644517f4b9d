"""Addresses with a scheme, such as gs://bucket/folder: what differs there from a local path.

epath reads and writes them, through gcsfs (the extra [gcs]); TensorStore writes Orbax's arrays. An
object in a bucket appears when its last byte has come. It cannot be renamed or appended to, nothing
can be locked, and folders are no more than beginnings of names.
"""

import functools
import logging
import os

from etils import epath

from .errors import InputError

KINDS = ("gs", "s3", "az", "hf")  # that epath knows; of these, gs is tested
_LONGEST_REASON = 200
_LOG_IN = (
    "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
)


def is_remote(path: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(path)


def failures(path: str | os.PathLike[str]) -> type[Exception]:
    """What reading or writing raises: on a network it may be anything."""
    return Exception if is_remote(path) else OSError


def reason(error: Exception) -> str:
    """What an exception says, in few words."""
    if said := getattr(error, "strerror", None):
        return str(said)
    if isinstance(error, FileNotFoundError):  # gcsfs says the object's name only
        return "it is not there"
    first, *more = (str(error) or type(error).__name__).splitlines()
    if more and first.startswith("Forbidden: "):  # and an address, and then why
        first = f"forbidden: {more[0]}"
    return first[:_LONGEST_REASON]


def require(path: str | os.PathLike[str]) -> None:
    """If `path` lies in a bucket, that one can be used; to be asked before anything there is."""
    if is_remote(path):
        scheme, _, rest = os.fspath(path).partition("://")
        _require(scheme, rest.partition("/")[0])


@functools.cache
def _require(scheme: str, bucket: str) -> None:
    address = f"{scheme}://{bucket}"
    if scheme not in KINDS or not bucket:
        raise InputError(
            f"{address} is no address of a bucket, which begins with {'://, '.join(KINDS)}://"
        )
    _forget_listings()
    try:
        epath.Path(address).stat()
    except FileNotFoundError:
        raise InputError(f"there is no bucket {address}, or you may not see it") from None
    except ImportError as error:
        raise InputError(
            f"{address} cannot be used: {reason(error)}. For Google's buckets: "
            "pip install 'omgsr-jax[gcs]'"
        ) from error
    except Exception as error:  # gcsfs, aiohttp and google.auth have their own
        hint = f"; {_LOG_IN}" if scheme == "gs" else ""
        raise InputError(f"{address} cannot be used: {reason(error)}{hint}") from error


def _forget_listings() -> None:
    """gcsfs remembers what it has listed, and would not see what TensorStore writes."""
    try:
        import fsspec.config
    except ImportError:
        return
    for kind in ("gs", "gcs"):
        fsspec.config.conf.setdefault(kind, {}).setdefault("use_listings_cache", False)
    logger = logging.getLogger("gcsfs")  # it logs what it raises, with a traceback
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
