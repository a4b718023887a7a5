"""Ranges of bytes of rasters: retried, limited, counted, checked against the version that was indexed.

State: ``_limiters`` holds this process's limiter for each policy; a forked child makes its own.
"""

from __future__ import annotations

import asyncio
import os
import queue
import random
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rasteret_dask.errors import RasteretError, SourceError, StaleIndexError, TransientError
from rasteret_dask.model import RatePolicy, StorageOptions
from rasteret_dask.storage import counters, stores
from rasteret_dask.storage.limiter import Limiter
from rasteret_dask.storage.loop import get_loop
from rasteret_dask.storage.retry import classify, delay
from rasteret_dask.storage.urls import Location, locate, public

_DEFAULT = StorageOptions()
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
    options = options or _DEFAULT
    location = locate(url)
    if location.kind == "file":
        return await asyncio.get_running_loop().run_in_executor(
            None, read_local, location.path, start, stop
        )
    reader = _reader(location, options)
    async with limiter(options.rate).host(location.host):
        return await _with_retries(lambda: reader(start, stop), public(url), options)


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


def _reader(
    location: Location, options: StorageOptions
) -> Callable[[int, int], Awaitable[RangeResponse]]:
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
    url = location.path if location.kind == "fsspec" else f"{location.root}/{location.path}"
    data = await asyncio.to_thread(filesystem.cat_file, url, start=start, end=stop)
    if len(data) > stop - start:
        # A server that ignores Range sends everything; the right bytes are in there, but the bill is not.
        raise NotImplementedError("Range request not supported")
    return RangeResponse(data)


async def _with_retries(
    attempt: Callable[[], Awaitable[RangeResponse]], url: str, options: StorageOptions
) -> RangeResponse:
    policy = options.retry
    rng = random.Random()
    number = 1
    while True:
        counters.add(requests=1)
        failure: SourceError
        try:
            # The store gives up a silent connection after `stall`; this is the net below it.
            response = await asyncio.wait_for(attempt(), timeout=None)
        except SourceError as error:
            failure = error.located(url=url)
        except (OSError, RuntimeError, ValueError, TimeoutError) as error:
            failure = classify(error, url)
        except Exception as error:  # noqa: BLE001 - obstore's and aiohttp's trees share no base but Exception
            failure = classify(error, url)
        else:
            counters.add(size=len(response.data))
            return response
        if not isinstance(failure, TransientError) or number >= policy.attempts:
            raise failure from None
        await asyncio.sleep(delay(number, policy, rng))
        counters.add(retries=1)
        number += 1


class Fetch:
    """Many ranges under way at once; iterate to have each as it arrives.

    All remote ranges are handed to the event loop at construction. Whoever iterates must call :meth:`done` with the number
    of bytes once a range has been used, so that the next ones may come: bytes fetched and not yet used stay under the
    process's budget.

    Parameters
    ----------
    requests : sequence of RangeRequest
        What to fetch.
    options : StorageOptions
        How, and the limits.
    """

    def __init__(
        self, requests: Sequence[RangeRequest], options: StorageOptions | None = None
    ) -> None:
        self._requests = requests
        self._options = options or _DEFAULT
        self._arrived: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._local: list[tuple[int, str]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._remote = 0
        self._local_read = 0
        self._closed = threading.Event()
        remote: list[tuple[int, Location]] = []
        for number, request in enumerate(requests):
            location = locate(request.url)
            if location.kind == "file":
                self._local.append((number, location.path))
            else:
                remote.append((number, location))
        self._remote = len(remote)
        if remote:
            self._loop = get_loop()
            self._limiter = limiter(self._options.rate)
            self._loop.call_soon_threadsafe(self._start, remote)

    def _start(self, remote: list[tuple[int, Location]]) -> None:
        if self._closed.is_set():
            return
        for number, location in remote:
            self._tasks.append(self._loop.create_task(self._one(number, location)))

    async def _one(self, number: int, location: Location) -> None:
        request = self._requests[number]
        size = request.stop - request.start
        await self._limiter.reserve(size)
        try:
            reader = _reader(location, self._options)
            async with self._limiter.host(location.host):
                response = await _with_retries(
                    lambda: reader(request.start, request.stop), public(request.url), self._options
                )
            _check(request, response)
        except BaseException as error:
            self._limiter.release(size)
            if not isinstance(error, RasteretError):
                if isinstance(error, asyncio.CancelledError):
                    raise
                self._arrived.put(
                    (
                        number,
                        SourceError(
                            f"reading failed ({type(error).__name__})", url=public(request.url)
                        ),
                    )
                )
                return
            self._arrived.put((number, error))
            return
        self._arrived.put((number, response.data))

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for number, path in self._local:
            request = self._requests[number]
            self._local_read += 1
            response = read_local(path, request.start, request.stop)
            _check(request, response)
            yield number, response.data
        for _ in range(self._remote):
            number, found = self._arrived.get()
            if isinstance(found, BaseException):
                raise found
            yield number, found

    def backlog(self) -> int:
        """Return how many ranges have arrived, or can be had at once, and wait to be used."""
        return self._arrived.qsize() + len(self._local) - self._local_read

    def done(self, number: int) -> None:
        """Say that the bytes of one range have been used."""
        request = self._requests[number]
        if locate(request.url).kind != "file":
            self._loop.call_soon_threadsafe(self._limiter.release, request.stop - request.start)

    def close(self) -> None:
        """Give up what is still under way."""
        self._closed.set()
        if self._remote:
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


def _check(request: RangeRequest, response: RangeResponse) -> None:
    url = public(request.url)
    if request.etag is not None and response.etag is not None and request.etag != response.etag:
        raise StaleIndexError(
            "the file has changed since its header was indexed",
            url=url,
            hint="build the collection again, or refresh it",
        )
    if len(response.data) < request.stop - request.start:
        raise SourceError(
            f"the file ends before byte {request.stop}",
            url=url,
            range=(request.start, request.stop),
            hint="it was cut off, or changed since its header was indexed",
        )
