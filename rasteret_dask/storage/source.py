"""Ranges of bytes of rasters: retried, limited, counted."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any, Final
from urllib.parse import quote

from rasteret_dask.errors import AccessError, RasteretError, TransientError
from rasteret_dask.model import StorageOptions
from rasteret_dask.storage import counters, http, recipes, stores
from rasteret_dask.storage.attempts import STORE_ERRORS, limiter, with_retries
from rasteret_dask.storage.auth import Grant, Keeper
from rasteret_dask.storage.limiter import Limiter
from rasteret_dask.storage.ranges import RangeRequest, RangeResponse, version_of
from rasteret_dask.storage.retry import Refusal, classify, range_ignored
from rasteret_dask.storage.urls import Location, locate, public, simple

__all__ = ["DEFAULT", "RangeRequest", "RangeResponse", "limiter", "read_local", "read_range"]

DEFAULT = StorageOptions()

SMALL: Final = 131072
"""Bytes of a range over TLS up to which our own HTTP costs a fraction of obstore's. More come in many pieces, each of which needs
Python's lock while others decode. Without TLS all ranges are read by our own: 8 to 15 % less CPU for windows and points."""


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
    return await read_remote(url, location, start, stop, options, limiter(options.rate))


async def read_remote(
    url: str, location: Location, start: int, stop: int, options: StorageOptions, limits: Limiter
) -> RangeResponse:
    """Read bytes ``[start, stop)`` of a remote file, with retries, within limits.

    Parameters
    ----------
    url : str
        As it was given, for errors.
    location : Location
    start, stop : int
    options : StorageOptions
    limits : Limiter
        Of this process.
    """
    read = reader_of(url, location, options, start, stop)
    renew = read.renew if isinstance(read, HttpRead) and read.keeper is not None else None
    gate = limits.host(location.host)
    return await with_retries(read, public(url), options.retry, gate, renew, stop - start)


def read_local(path: str, start: int, stop: int) -> RangeResponse:
    """Read bytes ``[start, stop)`` of a local file.

    Raises
    ------
    RasteretError
        As `classify` has it.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise classify(error, path) from None
    try:
        about = os.fstat(handle)
        # A damaged header asks for whatever it likes.
        stop = min(stop, about.st_size)
        data = os.pread(handle, stop - start, start) if start < stop else b""
    except OSError as error:
        raise classify(error, path) from None
    finally:
        os.close(handle)
    counters.add(requests=1, size=len(data))
    return RangeResponse(data, f"{about.st_mtime_ns:x}-{about.st_size:x}", None, about.st_size)


def reader_of(
    url: str, location: Location, options: StorageOptions, start: int, stop: int
) -> StoreRead | HttpRead | FsspecRead:
    """Return what makes one request for a range of a remote file each time it is called.

    Parameters
    ----------
    url : str
        As it was given.
    location : Location
    options : StorageOptions
    start, stop : int
    """
    web = location.web
    if web and options.auth is not None:
        keeper = recipes.keeper(options)
        if (scope := keeper.recipe.scope(url)) is not None:
            return HttpRead(url, location, options, start, stop, keeper, scope)
    own = stop - start <= SMALL or http.takes_large(url)
    if web and (location.kind != "object" or own):
        return HttpRead(url, location, options, start, stop)
    store = stores.object_store(location, options) if location.kind == "object" else None
    if store is not None:
        return StoreRead(store, url, location, options, start, stop)
    if web:  # in a forked child
        return HttpRead(url, location, options, start, stop)
    return FsspecRead(location, options, start, stop)


class StoreRead:
    """By obstore: the quick path."""

    __slots__ = ("_location", "_options", "_range", "_store", "_url")

    def __init__(
        self,
        store: Any,
        url: str,
        location: Location,
        options: StorageOptions,
        start: int,
        stop: int,
    ) -> None:
        self._store = store
        self._url = url
        self._location = location
        self._options = options
        self._range = (start, stop)

    async def __call__(self, *, careful: bool) -> RangeResponse:
        """Make the request; a careful one sees ``Retry-After``, which obstore does not show."""
        if careful and self._location.web:
            return await HttpRead(self._url, self._location, self._options, *self._range)(
                careful=True
            )
        result = await self._store.get_async(self._location.path, options={"range": self._range})
        meta = result.meta
        data = memoryview(await result.bytes_async())
        start, stop = self._range
        expected = min(stop, meta["size"]) - start
        if len(data) != expected:
            raise TransientError(f"{len(data)} bytes came where {expected} were announced")
        modified = meta["last_modified"]
        version = version_of(meta["e_tag"], meta["size"])
        return RangeResponse(
            data, version, modified.isoformat() if modified else None, meta["size"]
        )


class HttpRead:
    """By our own HTTP: small ranges, and whatever needs a credential, a query, or an eye on the headers."""

    __slots__ = ("_grant", "_location", "_options", "_range", "_scope", "_url", "keeper")

    def __init__(
        self,
        url: str,
        location: Location,
        options: StorageOptions,
        start: int,
        stop: int,
        keeper: Keeper | None = None,
        scope: str = "",
    ) -> None:
        self._url = url
        self._location = location
        self._options = options
        self._range = (start, stop)
        self._scope = scope
        self._grant: Grant | None = None
        self.keeper = keeper

    async def __call__(self, *, careful: bool) -> RangeResponse:
        """Make the request."""
        # What locate() has understood goes over the wire encoded once more; a URL with a query is taken as it stands.
        wire = self._url
        if self._location.kind == "object":
            path = self._location.path
            wire = f"{self._location.root}/{path if simple(path) else quote(path)}"
        headers: dict[str, str] = {}
        if self.keeper is not None:
            grant = await self.keeper.grant(self._url, self._scope)
            # Here and not where grants are made: one that was made for an https file serves others of its host.
            if grant.headers and not recipes.private(self._url):
                raise AccessError(
                    "a token is never sent over plain http", hint="use the file's https address"
                )
            self._grant = grant
            wire, headers = grant.sign(wire), dict(grant.headers)
        return await http.get_range(wire, *self._range, headers=headers, policy=self._options.retry)

    def renew(self) -> None:
        """Forget the credential: it was refused."""
        if self.keeper is not None:
            self.keeper.forget(self._scope, self._grant)


class FsspecRead:
    """By fsspec, in a thread: protocols that obstore does not know."""

    __slots__ = ("_location", "_options", "_range")

    def __init__(self, location: Location, options: StorageOptions, start: int, stop: int) -> None:
        self._location = location
        self._options = options
        self._range = (start, stop)

    async def __call__(self, *, careful: bool) -> RangeResponse:
        """Make the request."""
        filesystem = stores.filesystem(self._location, self._options)
        path = self._location.path
        if self._location.kind == "object":  # in a forked child
            path = f"{self._location.root}/{path}"
        start, stop = self._range
        data = await asyncio.to_thread(_cat, filesystem, path, start, stop)
        if len(data) > stop - start:
            # A server that ignores Range sends everything; the right bytes are in there, but the bill is not.
            raise range_ignored(None)
        return RangeResponse(data)


def _cat(filesystem: Any, path: str, start: int, stop: int) -> Any:
    """Read a range; errors of a store's own library, which are of no tree that is known here, become what they say, or an OSError."""
    known: tuple[type[Exception], ...] = (*STORE_ERRORS, RasteretError)
    try:
        return filesystem.cat_file(path, start=start, end=stop)
    except known:
        raise
    except Exception as error:  # noqa: BLE001 (raised below, as another)
        said = [getattr(error, name, None) for name in ("status_code", "status", "code")]
        status = next((n for n in said if isinstance(n, int) and 100 <= n <= 999), None)
        failed = OSError(errno.EIO, type(error).__name__) if status is None else Refusal(status)
    # Their text may hold a signed URL: out here nothing is being handled any more.
    raise failed
