"""Fetch and parse TIFF headers, many at once, each within bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from rasteret_dask.errors import HeaderError, RasteretError, StaleIndexError
from rasteret_dask.model import StorageOptions
from rasteret_dask.storage.source import RangeResponse, read_range
from rasteret_dask.storage.urls import public
from rasteret_dask.tiff.alike import Parser
from rasteret_dask.tiff.header import MAX_ROUNDS, NeedBytes, Segments
from rasteret_dask.tiff.model import TiffHeader

FIRST_READ: Final = 32768
"""Bytes asked for at first: the whole header of most COGs."""

_AT_FIRST: Final = 32
"""Headers under way when a fetch begins, and by how many they become more."""
_LOOK: Final = 0.004
"""Seconds between two looks whether more of them would help."""
_IDLE: Final = 0.75
"""Share of these seconds that the loop's thread may work and still have time for more."""


async def fetch_header(
    url: str, *, options: StorageOptions | None = None, first_read: int = FIRST_READ
) -> TiffHeader:
    """Read the header of one TIFF.

    Parameters
    ----------
    url : str
        A local path or a URL.
    options : StorageOptions, optional
        How to reach it.
    first_read : int
        Bytes of the first request; more requests follow only for headers that are larger or lie
        elsewhere.

    Returns
    -------
    TiffHeader
        With ``size``, ``etag`` and ``last_modified`` of the file.

    Raises
    ------
    HeaderError, UnsupportedTiffError
        When the file is damaged, or of a kind that is not read.
    SourceError
        When its bytes cannot be had.
    """
    try:
        return await _fetch(url, options, first_read, Parser())
    except RasteretError as error:
        raise error.located(url=public(url)) from None


async def _fetch(
    url: str, options: StorageOptions | None, first_read: int, parser: Parser
) -> TiffHeader:
    first = await read_range(url, 0, max(first_read, 16), options=options)
    size = first.size
    if size is None and len(first.data) < first_read:
        size = len(first.data)  # the file ended within the first read
    segments = Segments(((0, bytes(first.data)),), size)
    for _ in range(MAX_ROUNDS):
        found = parser.parse(segments, first.etag, first.last_modified)
        if not isinstance(found, NeedBytes):
            return found
        responses = await asyncio.gather(
            *(read_range(url, start, stop, options=options) for start, stop in found.ranges)
        )
        for (start, stop), response in zip(found.ranges, responses, strict=True):
            _same_version(first, response)
            if len(response.data) < stop - start and size is None:
                size = start + len(response.data)
            segments = segments.add(start, response.data, size)
        if all(len(response.data) == 0 for response in responses):
            break
    raise HeaderError(
        f"the header was not complete after {MAX_ROUNDS} rounds of reading", tag="IFD"
    )


def _same_version(first: RangeResponse, later: RangeResponse) -> None:
    if first.etag is not None and later.etag is not None and first.etag != later.etag:
        raise StaleIndexError("the file changed while its header was read")


async def fetch_headers(
    urls: Sequence[str],
    *,
    options: StorageOptions | None = None,
    first_read: int = FIRST_READ,
) -> list[TiffHeader | RasteretError]:
    """Read many headers at once; a file that fails gives its error in place of its header.

    Some at first, and more as long as the thread that reads them has little to do: connections cost as much as headers, and the more of
    them help the farther the server is.

    Parameters
    ----------
    urls : sequence of str
        Local paths or URLs.
    options : StorageOptions, optional
        How to reach them.
    first_read : int
        Bytes of the first request for each.

    Returns
    -------
    list of TiffHeader or RasteretError, one per URL
        Never raises for a file.
    """
    parser = Parser()
    found: list[TiffHeader | RasteretError | None] = [None] * len(urls)
    waiting = iter(range(len(urls)))

    async def work() -> None:
        # A few that take turns, not a task for each file: that is a third of what a header costs.
        for number in waiting:
            try:
                found[number] = await _fetch(urls[number], options, first_read, parser)
            except RasteretError as error:
                found[number] = error.located(url=public(urls[number]))

    most = min((options or StorageOptions()).rate.in_flight, len(urls))
    try:
        async with asyncio.TaskGroup() as group:
            begun = [group.create_task(work()) for _ in range(min(most, _AT_FIRST))]
            while len(begun) < most and not any(one.done() for one in begun):
                worked = time.thread_time()
                await asyncio.sleep(_LOOK)
                if time.thread_time() - worked < _IDLE * _LOOK:
                    more = min(_AT_FIRST, most - len(begun))
                    begun += [group.create_task(work()) for _ in range(more)]
    except ExceptionGroup as failed:
        # Whoever calls knows what to do with an error, and nothing of groups.
        raise failed.exceptions[0] from None
    return [one for one in found if one is not None]
