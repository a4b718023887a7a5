"""A batch of byte ranges under way at once, handed over as they arrive."""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from rasteret_dask.errors import RasteretError, SourceError, StaleIndexError
from rasteret_dask.model import StorageOptions
from rasteret_dask.storage.limiter import Budget
from rasteret_dask.storage.loop import get_loop
from rasteret_dask.storage.source import (
    DEFAULT,
    RangeRequest,
    RangeResponse,
    limiter,
    read_local,
    read_remote,
)
from rasteret_dask.storage.urls import Location, locate, public

ROOM: Final = 16 * 1024
"""Bytes that a range takes beside its own: the room for an answer's head."""

_FAILED: Final = -1
"""In place of a range's number."""

_LOTS: Final = 16
"""Lots that a budget is of; the loop's thread is woken when one has been used. Each time it wants the interpreter's lock of those that
decode."""


class Fetch:
    """Many ranges under way at once; iterate to have each as it arrives, or let several threads take them.

    All remote ranges are handed to the event loop at construction. Whoever iterates calls :meth:`done` once a range has been used, so that
    the next ones may come: bytes fetched and not yet used stay under the process's budget. Whoever stops early calls :meth:`close`; who
    pauses before it has taken what has arrived may keep a sixteenth of the budget from others.

    Parameters
    ----------
    requests : sequence of RangeRequest
        What to fetch.
    options : StorageOptions, optional
        How, and the limits.
    ahead : bool
        Nobody waits yet: only what the budget lends to such reads is fetched, as it comes free, and the rest when iteration begins.
    raising : bool
        False: a range that cannot be had gives its error in place of its bytes, and the others go on.
    """

    def __init__(
        self,
        requests: Sequence[RangeRequest],
        options: StorageOptions | None = None,
        *,
        ahead: bool = False,
        raising: bool = True,
    ) -> None:
        self._requests = list(requests)
        self._raising = raising
        self._options = options or DEFAULT
        self._arrived: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._local: list[tuple[int, str]] = []
        self._local_read = 0
        self._claimed = 0  # remote ranges that somebody has, or waits for
        self._used: list[int] = []  # and not released yet
        self._used_bytes = 0
        self._told = False  # the loop's thread, that it is to release these
        self._lot = self._options.rate.budget // _LOTS
        self._taking = threading.Lock()
        remote: list[tuple[int, Location]] = []
        for number, request in enumerate(self._requests):
            location = locate(request.url)
            if location.kind == "file":
                self._local.append((number, location.path))
            else:
                remote.append((number, location))
        self._remote = len(remote)
        self._unsaid = ahead and bool(remote)  # that somebody waits
        # From here on, these belong to the event loop's thread.
        self._closed = False
        self._held: dict[int, bool] = {}  # whether the bytes were lent
        self._tasks: set[asyncio.Task[None]] = set()
        self._later: deque[tuple[int, Location]] = deque()
        if remote:
            self._loop = get_loop()
            self._limiter = limiter(self._options.rate)
            self._loop.call_soon_threadsafe(self._start, remote, ahead)

    def _start(self, remote: list[tuple[int, Location]], ahead: bool) -> None:
        self._later.extend(remote)
        if not ahead:
            self._launch_later()
        elif not self._launch_some():
            self._limiter.budget.hope(weakref.WeakMethod(self._launch_some))

    def _launch_some(self) -> bool:
        """Launch what the budget lends; whether there is nothing more to hope for."""
        budget = self._limiter.budget
        while self._later:
            number, location = self._later[0]
            if not budget.lend(self._size(number)):
                # Of what is larger than all that is ever lent nothing can be had before somebody waits for it.
                return self._size(number) > budget.spare
            self._later.popleft()
            self._held[number] = True
            self._launch(number, location)
        return True

    def _launch_later(self) -> None:
        while self._later:
            self._launch(*self._later.popleft())

    def _launch(self, number: int, location: Location) -> None:
        if self._closed:
            self._release(number)
            return
        task = self._loop.create_task(self._one(number, location))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, number))

    async def _one(self, number: int, location: Location) -> None:
        request = self._requests[number]
        if number not in self._held:
            await self._limiter.budget.reserve(self._size(number))
            self._held[number] = False
        response = await read_remote(
            request.url, location, request.start, request.stop, self._options, self._limiter
        )
        check_response(request, response)
        self._arrived.put((number, response.data))
        self._release_used()  # it need not be woken for these any more

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._release(number)
            return
        error = task.exception()
        if error is not None:
            self._release(number)
            if not isinstance(error, RasteretError):
                url = public(self._requests[number].url)
                error = SourceError(f"reading failed ({type(error).__name__})", url=url)
            self._arrived.put((number, error))
        elif self._closed:
            self._release(number)

    def _size(self, number: int) -> int:
        return _size(self._requests[number])

    def _release(self, number: int) -> None:
        lent = self._held.pop(number, None)
        if lent is not None:
            self._limiter.budget.release(self._size(number), lent=lent)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        self.begin()
        while (found := self.take()) is not None:
            yield found

    def begin(self) -> None:
        """Say that somebody waits now: what was not fetched ahead is fetched."""
        if self._unsaid:
            self._unsaid = False
            self._loop.call_soon_threadsafe(self._launch_later)

    def add(self, request: RangeRequest) -> None:
        """Fetch one range more, whose number is the next; for those who take, while they do."""
        location = locate(request.url)
        with self._taking:
            number = len(self._requests)
            self._requests.append(request)
            if location.kind == "file":
                self._local.append((number, location.path))
                return
            self._remote += 1
        self._loop.call_soon_threadsafe(self._launch, number, location)

    def take(self, *, wait: bool = True) -> tuple[int, Any] | None:
        """Return the number of a range that nobody else has taken, and its bytes, or its error unless those are raised.

        Parameters
        ----------
        wait : bool
            For one to arrive. False: None when there is none at the moment.

        Returns
        -------
        (int, buffer or RasteretError), optional
            None when all have been taken.
        """
        arrived: tuple[int, Any] | None = None
        if self._used:
            self._tell()  # what has come since may have been an error, which nobody uses
        with self._taking:
            local = self._local_read < len(self._local)
            if local:
                number, path = self._local[self._local_read]
                self._local_read += 1
            elif self._claimed == self._remote:
                return None
            else:
                # Who waits has a claim: nobody takes the last one away from them.
                with suppress(queue.Empty):
                    arrived = None if wait else self._arrived.get_nowait()
                if arrived is None and not wait:
                    return None
                self._claimed += 1
        if local:
            found = self._read_local(number, path)
        else:
            number, found = arrived or self._arrived.get()
        if number == _FAILED or (isinstance(found, RasteretError) and self._raising):
            raise found
        return number, found

    def _read_local(self, number: int, path: str) -> Any:
        request = self._requests[number]
        try:
            response = read_local(path, request.start, request.stop)
            check_response(request, response)
        except RasteretError as error:
            return error
        return response.data

    def fail(self, error: BaseException) -> None:
        """Have those who wait raise an error: who was to use a range cannot, and what is waited for may need its room."""
        self._arrived.put((_FAILED, error))

    def backlog(self) -> int:
        """Return how many ranges have arrived, or can be had at once, and wait to be used."""
        return self._arrived.qsize() + len(self._local) - self._local_read

    def done(self, number: int) -> None:
        """Say that the bytes of one range have been used; the loop is told when it is worth it, and before anybody waits."""
        if not self._remote:
            return
        with self._taking:
            self._used.append(number)
            self._used_bytes += self._size(number)
        self._tell()

    def _tell(self) -> None:
        """Have the loop's thread woken for what has been used, if that is much, or if nothing is there to go on with."""
        with self._taking:
            little = self._used_bytes < self._lot and self._arrived.qsize()
            if self._told or little or not self._used:
                return
            self._told = True
        self._loop.call_soon_threadsafe(self._release_used)

    def _release_used(self) -> None:
        """Give back what has been used since; by the loop's thread."""
        if self._used:
            with self._taking:
                used, self._used, self._used_bytes, self._told = self._used, [], 0, False
            for number in used:
                self._release(number)

    def close(self) -> None:
        """Give up what is still under way; what has arrived and was not used is dropped."""
        if self._remote:
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        self._closed = True
        self._later.clear()
        for task in list(self._tasks):
            task.cancel()
        for number in list(self._held):
            self._release(number)

    def __del__(self) -> None:
        # A fetch ahead that nobody came for.
        if getattr(self, "_remote", 0) and not self._closed and not self._loop.is_closed():
            budget = self._limiter.budget
            self._loop.call_soon_threadsafe(
                _close_held, self._tasks, self._held, self._requests, budget
            )


def _close_held(
    tasks: set[asyncio.Task[None]],
    held: dict[int, bool],
    requests: Sequence[RangeRequest],
    budget: Budget,
) -> None:
    for task in list(tasks):
        task.cancel()
    for number, lent in list(held.items()):
        del held[number]
        budget.release(_size(requests[number]), lent=lent)


def _size(request: RangeRequest) -> int:
    return request.stop - request.start + ROOM


def check_response(request: RangeRequest, response: RangeResponse) -> None:
    """Refuse bytes of another version, and fewer bytes than were asked for.

    Raises
    ------
    StaleIndexError, SourceError
    """
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
