"""HTTP: ranges by our own connections, and by aiohttp what those do not deal with (proxies, redirects, documents).

State: ``_sessions`` holds the aiohttp session of each process; a forked child makes its own. ``_unusual`` counts, for each server, the
answers that our own connections could not read; ``_proxy`` remembers which servers the environment names a proxy for.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from rasteret_dask.errors import TransientError
from rasteret_dask.model import RetryPolicy
from rasteret_dask.storage import trust, wire
from rasteret_dask.storage.loop import get_loop
from rasteret_dask.storage.ranges import RangeResponse, version_of
from rasteret_dask.storage.retry import Refusal, parse_retry_after, range_ignored

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_sessions: dict[int, aiohttp.ClientSession] = {}
_unusual: Counter[str] = Counter()

_PATIENCE: Final = 3
"""Unusual answers after which a server is left to aiohttp."""
_MOVED: Final = (301, 302, 303, 307, 308)
_HOPS: Final = 10
"""Redirects that are followed, as by aiohttp."""


def _session() -> aiohttp.ClientSession:
    pid = os.getpid()
    session = _sessions.get(pid)
    if session is None:
        # The limits are ours, and a body is taken as it comes. Not trust_env: it would send what netrc holds on its own.
        session = _sessions[pid] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=50.0, ssl=trust.context()),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        atexit.register(_close, pid)
    return session


def _close(pid: int) -> None:
    session = _sessions.pop(pid, None)
    if session is None or pid != os.getpid():
        return
    future = asyncio.run_coroutine_threadsafe(session.close(), get_loop())
    try:
        future.result(timeout=2.0)
    except TimeoutError:
        future.cancel()


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for a URL (``HTTPS_PROXY``, ``NO_PROXY`` …)."""
    parts = urlsplit(url)
    proxies = getproxies()
    if not proxies or proxy_bypass(parts.hostname or ""):
        return None
    return proxies.get(parts.scheme)


@lru_cache(maxsize=1024)
def _proxy(root: str) -> str | None:
    """The environment as it was when a server was first asked; reading it costs more than a request does."""
    return proxy_for(root)


def _timeout(policy: RetryPolicy) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=None, sock_connect=min(10.0, policy.stall), sock_read=policy.stall
    )


def takes_large(url: str) -> bool:
    """Whether large ranges of a URL, too, are read best by our own connections, and not by obstore's."""
    return wire.takes_large(url) and _bare(url[: url.find("/", 8)])


def _bare(root: str) -> bool:
    """Whether a server is asked by our own connections."""
    return _unusual[root] < _PATIENCE and _proxy(root) is None


async def get_range(
    url: str, start: int, stop: int, *, headers: Mapping[str, str], policy: RetryPolicy
) -> RangeResponse:
    """Ask once for bytes ``[start, stop)``, and check that they are these.

    Parameters
    ----------
    url : str
        As it goes over the wire, percent-encoded, signature and all.
    headers : mapping
        To be sent beside ``Range``: secrets, which are not passed on to another server.

    Raises
    ------
    Refusal
        If the server answers with anything but data.
    RangeIgnoredError, TransientError
        If the answer is not what was asked for; the URL is left to the caller to add.
    """
    root = url[: url.find("/", 8)]
    if _bare(root):
        try:
            found = await wire.get_range(url, start, stop, headers=headers, stall=policy.stall)
        except wire.Unusual:
            _unusual[root] += 1
        else:
            last, size = _checked(found.status, found.fields, start, stop)
            return _response(found.body, found.fields, last - start, size)
    plain = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    async with _answer("GET", url, plain, headers, policy) as answer:
        fields = {name.lower(): value for name, value in answer.headers.items()}
        last, size = _checked(answer.status, fields, start, stop)
        return _response(await answer.read(), fields, last - start, size)


@asynccontextmanager
async def _answer(
    method: str,
    url: str,
    plain: Mapping[str, str],
    secrets: Mapping[str, str],
    policy: RetryPolicy,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer to a request, where it is redirected to as well.

    aiohttp keeps ``Authorization`` alone from another server, and a secret may have any name; so as long as there are secrets, redirects
    are followed here, and the first that leads to another server loses them for good.
    """
    at = URL(url, encoded=True)
    for hop in range(_HOPS + 1):
        async with _session().request(
            method,
            at,
            headers={**plain, **secrets},
            timeout=_timeout(policy),
            proxy=proxy_for(str(at)),
            allow_redirects=not secrets,
        ) as answer:
            place = answer.headers.get("Location", "")
            if answer.status not in _MOVED or not place or not secrets or hop == _HOPS:
                yield answer
                return
            # As aiohttp has them: what the server has not encoded is, and what it has stays.
            there = at.join(URL(place))
            if answer.status in (301, 302, 303):
                method = "GET"
        if there.origin() != at.origin():
            secrets = {}
        at = there


def _checked(
    status: int, fields: Mapping[str, str], start: int, stop: int
) -> tuple[int, int | None]:
    """Where the body ends, and the size of the file if it is said; by the head alone, before a body is received."""
    if status == 200:
        raise range_ignored(None)
    if status != 206:
        raise _refusal(status, fields)
    found = _CONTENT_RANGE.fullmatch(fields.get("content-range", ""))
    if found is not None and int(found[1]) == start:
        size = None if found[3] == "*" else int(found[3])
        last = stop if size is None else min(stop, size)
        if int(found[2]) + 1 == last:
            return last, size
    raise TransientError("the server sent another range than was asked for")


def _response(data: Any, fields: Mapping[str, str], length: int, size: int | None) -> RangeResponse:
    if len(data) != length:
        raise TransientError(f"{len(data)} bytes came where {length} were announced")
    version = version_of(fields.get("etag"), size)
    return RangeResponse(data, version, _modified(fields.get("last-modified")), size)


async def get_document(
    url: str, *, headers: Mapping[str, str], policy: RetryPolicy, method: str = "GET"
) -> RangeResponse:
    """Ask once for a whole small document.

    Parameters
    ----------
    url : str
    headers : mapping
        Secrets, which are not passed on to another server.
    policy : RetryPolicy
        For its timeouts; nothing is tried twice here.
    method : str

    Raises
    ------
    Refusal
        If the server answers with anything but data.
    """
    async with _answer(method, url, {}, headers, policy) as answer:
        if answer.status != 200:
            raise _refusal(answer.status, {"retry-after": answer.headers.get("Retry-After", "")})
        return RangeResponse(await answer.read())


@lru_cache(maxsize=1024)
def _modified(text: str | None) -> str | None:
    try:
        return None if text is None else parsedate_to_datetime(text).isoformat()
    except ValueError:
        return None


def _refusal(status: int, fields: Mapping[str, str]) -> Refusal:
    return Refusal(status, parse_retry_after(fields.get("retry-after"), time.time()))
