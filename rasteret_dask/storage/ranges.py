"""What is asked of a file, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RangeResponse:
    """Bytes, and what the response says of the whole file.

    Parameters
    ----------
    data : bytes-like
        May be shorter than asked when the file ends.
    etag, last_modified : str, optional
        The version; for local files made of time and size.
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
