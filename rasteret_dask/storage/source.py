"""Ranges of bytes of rasters: retried, limited, counted, checked against the version that was indexed.

State: ``_limiters`` holds this process's limiter for each policy; a forked child makes its own.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
from obstore.exceptions import BaseError

from rasteret_dask.errors import SourceError, TransientError
from rasteret_dask.model import RatePolicy, StorageOptions
from rasteret_dask.storage import counters, stores
from rasteret_dask.storage.limiter import Limiter
from rasteret_dask.storage.retry import classify, delay, range_ignored
from rasteret_dask.storage.urls import Location, locate, public

DEFAULT = StorageOptions()

STORE_ERRORS = (BaseError, OSError, ValueError, RuntimeError, aiohttp.ClientError)
"""What obstore, fsspec and the operating system raise; their trees meet nowhere below ``Exception``."""

_limiters: dict[tuple[int, RatePolicy], Limiter] = {}


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


def limiter(policy: RatePolicy) -> Limiter:
    """Return this process's limiter for a policy."""
    key = (os.getpid(), policy)
    found = _limiters.get(key)
    if found is None:
        found = _limiters.setdefault(key, Limiter(policy))
    return found


async def read_range(
    url: str, start: int, stop: int, *, options: StorageOptions | None = None
) -> RangeResponse:
    """Read bytes ``[start, stop)`` of a file.

    Parameters
    ----------
    url : str
        A local path or a URL.
    start, stop : int
        Half-open range of bytes.
    options : StorageOptions, optional
        How to reach it, and the limits.

    Returns
    -------
    RangeResponse

    Raises
    ------
    SourceError
        If the bytes cannot be had; its subclasses say why.
    """
    options = options or DEFAULT
    location = locate(url)
    if location.kind == "file":
        return await asyncio.get_running_loop().run_in_executor(
            None, read_local, location.path, start, stop
        )
    reader = reader_of(location, options)
    async with limiter(options.rate).host(location.host):
        return await with_retries(lambda: reader(start, stop), public(url), options)


def read_local(path: str, start: int, stop: int) -> RangeResponse:
    """Read bytes ``[start, stop)`` of a local file."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise classify(error, path) from None
    try:
        about = os.fstat(handle)
        data = os.pread(handle, stop - start, start)
    except OSError as error:
        raise classify(error, path) from None
    finally:
        os.close(handle)
    counters.add(requests=1, size=len(data))
    return RangeResponse(data, f"{about.st_mtime_ns:x}-{about.st_size:x}", None, about.st_size)


def reader_of(
    location: Location, options: StorageOptions
) -> Callable[[int, int], Awaitable[RangeResponse]]:
    """Return what makes one request, once, for a range of a remote file."""
    store = stores.object_store(location, options) if location.kind == "object" else None
    if store is None:
        return lambda start, stop: _from_fsspec(location, options, start, stop)
    return lambda start, stop: _from_store(store, location.path, start, stop)


async def _from_store(store: Any, path: str, start: int, stop: int) -> RangeResponse:
    result = await store.get_async(path, options={"range": (start, stop)})
    meta = result.meta
    data = memoryview(await result.bytes_async())
    expected = min(stop, meta["size"]) - start
    if len(data) != expected:
        raise TransientError(f"{len(data)} bytes came where {expected} were announced")
    modified = meta["last_modified"]
    return RangeResponse(
        data, meta["e_tag"], modified.isoformat() if modified else None, meta["size"]
    )


async def _from_fsspec(
    location: Location, options: StorageOptions, start: int, stop: int
) -> RangeResponse:
    filesystem = stores.filesystem(location, options)
    url = location.path
    if location.kind == "object":
        # In a forked child; HTTP wants its path encoded again.
        path = quote(location.path) if location.root.startswith("http") else location.path
        url = f"{location.root}/{path}"
    data = await asyncio.to_thread(filesystem.cat_file, url, start=start, end=stop)
    if len(data) > stop - start:
        # A server that ignores Range sends everything; the right bytes are in there, but the bill is not.
        raise range_ignored(public(url))
    return RangeResponse(data)


async def with_retries(
    attempt: Callable[[], Awaitable[RangeResponse]], url: str, options: StorageOptions
) -> RangeResponse:
    """Make a request until it succeeds, fails for good, or the policy's attempts are used up.

    Raises
    ------
    SourceError
        Made anew from the unsigned URL: a store's own message can carry a signature.
    """
    policy = options.retry
    rng = random.Random()
    number = 1
    while True:
        counters.add(requests=1)
        failure: SourceError
        try:
            response = await attempt()
        except SourceError as error:
            failure = error.located(url=url)
        except STORE_ERRORS as error:
            failure = classify(error, url)
        else:
            counters.add(size=len(response.data))
            return response
        if not isinstance(failure, TransientError) or number >= policy.attempts:
            raise failure from None
        await asyncio.sleep(delay(number, policy, rng))
        counters.add(retries=1)
        number += 1
