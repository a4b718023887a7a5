"""What is asked of a file, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_BY_SIZE: Final = "size-"


def version_of(etag: str | None, size: int | None) -> str | None:
    """Return what must be the same as long as a file is: its ETag, else its size, which is something.

    When it was modified is not: some servers say of every answer that it is new.
    """
    return etag or (None if size is None else f"{_BY_SIZE}{size}")


def is_etag(version: str | None) -> bool:
    """Whether a version is the server's own word."""
    return version is not None and not version.startswith(_BY_SIZE)


@dataclass(frozen=True, slots=True)
class RangeResponse:
    """Bytes, and what the response says of the whole file.

    Parameters
    ----------
    data : bytes-like
        May be shorter than asked when the file ends.
    etag, last_modified : str, optional
        The version; for local files made of time and size, for servers without one of the size.
    size : int, optional
        Bytes of the whole file.
    """

    data: Any
    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """Bytes ``[start, stop)`` of one file, which must still be the version ``etag`` (None: any)."""

    url: str
    start: int
    stop: int
    etag: str | None = None
