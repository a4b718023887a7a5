"""When to try again, and after how long: pure."""

from __future__ import annotations

import random
import re

from rasteret_dask.errors import (
    AccessError,
    NotFoundError,
    RangeIgnoredError,
    SourceError,
    TransientError,
)
from rasteret_dask.model import RetryPolicy

_STATUS = re.compile(r"status code: (\d{3})")


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


def range_ignored(url: str) -> RangeIgnoredError:
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
    status = _STATUS.search(text) or _client_status(error)
    if status is not None:
        return from_status(int(status.group(1)), url)
    if isinstance(error, TimeoutError):
        return TransientError("no answer in time", url=url)
    return TransientError(f"the connection failed ({name})", url=url)


def _client_status(error: Exception) -> re.Match[str] | None:
    # aiohttp's ClientResponseError has the status as a number.
    status = getattr(error, "status", None)
    return re.match(r"(\d{3})", str(status)) if isinstance(status, int) else None


def delay(attempt: int, policy: RetryPolicy, rng: random.Random) -> float:
    """Seconds to wait before attempt number ``attempt`` (the first repetition is 1).

    "Full jitter": uniform in ``[0, min(cap, base * 2**attempt)]``, which spreads the retries of many workers.
    """
    return rng.uniform(0.0, min(policy.cap, policy.base * 2.0 ** min(attempt, 60)))
