"""When to try again, and after how long: pure."""

from __future__ import annotations

import random
import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from rasteret_dask.errors import (
    AccessError,
    NotFoundError,
    RangeIgnoredError,
    SourceError,
    TransientError,
)
from rasteret_dask.model import RetryPolicy

_STATUS = re.compile(r"status code: (\d{3})")

REFUSALS = (429, 503)
"""Statuses by which a server says that it is asked for too much."""


class Refusal(Exception):
    """An HTTP answer that is no data, as our own client saw it; never leaves this room.

    Parameters
    ----------
    status : int
    wait : float
        Seconds that ``Retry-After`` asks for.
    """

    def __init__(self, status: int, wait: float = 0.0) -> None:
        super().__init__(status)
        self.status = status
        self.wait = wait


def parse_retry_after(text: str | None, now: float) -> float:
    """Return the seconds that a ``Retry-After`` asks for: a number, or an HTTP date (RFC 9110, 10.2.3); 0 when it makes no sense.

    Parameters
    ----------
    text : str, optional
        Of the header.
    now : float
        Seconds since 1970.
    """
    if text is None:
        return 0.0
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d*)?", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - now)


def from_status(status: int, url: str) -> SourceError:
    """Turn an HTTP status into the error that says what it means."""
    if status in (401, 403):
        return AccessError(
            f"the server refuses access (HTTP {status})",
            url=url,
            hint="check the credentials that the workers have, and whether the file is public",
        )
    if status in (404, 410):
        return NotFoundError(f"no such file (HTTP {status})", url=url)
    if status in (408, 425, 429) or status >= 500:
        return TransientError(f"the server is busy or failing (HTTP {status})", url=url)
    if status == 416:
        return SourceError("the range lies past the end of the file (HTTP 416)", url=url)
    return SourceError(f"the server answers HTTP {status}", url=url)


def range_ignored(url: str | None) -> RangeIgnoredError:
    """Return the error for a server that answers with the whole file."""
    return RangeIgnoredError(
        "the server ignores Range and would send the whole file",
        url=url,
        hint="host the file where byte ranges are served, or copy it to local disk",
    )


def classify(error: Exception, url: str) -> SourceError:
    """Turn a store's exception into ours, without its text, which may carry a signature.

    Parameters
    ----------
    error : Exception
        As obstore, fsspec or the operating system raised it.
    url : str
        The unsigned URL.
    """
    if isinstance(error, SourceError):
        return error.located(url=url)
    name = type(error).__name__
    text = str(error)
    if isinstance(error, FileNotFoundError) or name == "NotFoundError":
        return NotFoundError("no such file", url=url)
    if isinstance(error, PermissionError) or name in (
        "PermissionDeniedError",
        "UnauthenticatedError",
    ):
        return AccessError("access refused", url=url)
    if name == "NotSupportedError" and "Range" in text:
        return range_ignored(url)
    status = status_of(error)
    if status is not None:
        return from_status(status, url)
    if isinstance(error, TimeoutError):
        return TransientError("no answer in time", url=url)
    return TransientError(f"the connection failed ({name})", url=url)


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that a store's exception speaks of, if any."""
    # aiohttp's errors and our own have it as a number, obstore's in their text.
    status = getattr(error, "status", None)
    if isinstance(status, int) and 100 <= status <= 999:
        return status
    found = _STATUS.search(str(error))
    return None if found is None else int(found.group(1))


def delay(attempt: int, policy: RetryPolicy, rng: random.Random) -> float:
    """Seconds to wait before attempt number ``attempt`` (the first repetition is 1).

    "Full jitter": uniform in ``[0, min(cap, base * 2**attempt)]``, which spreads the retries of many workers.
    """
    return rng.uniform(0.0, min(policy.cap, policy.base * 2.0 ** min(attempt, 60)))
