"""HTTP by aiohttp, where what obstore offers is not enough: URLs with a query, credentials in headers, answers whose headers matter.

State: ``_sessions`` holds the session of each process; a forked child makes its own.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from rasteret_dask.errors import TransientError
from rasteret_dask.model import RetryPolicy
from rasteret_dask.storage.loop import get_loop
from rasteret_dask.storage.ranges import RangeResponse
from rasteret_dask.storage.retry import Refusal, parse_retry_after, range_ignored

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_sessions: dict[int, aiohttp.ClientSession] = {}


def _session() -> aiohttp.ClientSession:
    pid = os.getpid()
    session = _sessions.get(pid)
    if session is None:
        # The limits are ours, and a body is taken as it comes. Not trust_env: it would send what netrc holds on its own.
        session = _sessions[pid] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=50.0),
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


def _timeout(policy: RetryPolicy) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=None, sock_connect=min(10.0, policy.stall), sock_read=policy.stall
    )


async def get_range(
    url: str, start: int, stop: int, *, headers: Mapping[str, str], policy: RetryPolicy
) -> RangeResponse:
    """Ask once for bytes ``[start, stop)``, and check that they are these.

    Parameters
    ----------
    url : str
        As it goes over the wire, percent-encoded, signature and all.
    headers : mapping
        To be sent beside ``Range``; ``Authorization`` is not passed on to another host.

    Raises
    ------
    Refusal
        If the server answers with anything but data.
    RangeIgnoredError, TransientError
        If the answer is not what was asked for; the URL is left to the caller to add.
    """
    sent = {**headers, "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    async with _session().get(
        URL(url, encoded=True), headers=sent, timeout=_timeout(policy), proxy=proxy_for(url)
    ) as answer:
        if answer.status == 200:
            raise range_ignored(None)
        if answer.status != 206:
            raise _refusal(answer)
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            raise TransientError("the server sent another range than was asked for")
        size = None if found[3] == "*" else int(found[3])
        last = stop if size is None else min(stop, size)
        if int(found[2]) + 1 != last:
            raise TransientError("the server sent another range than was asked for")
        data = await answer.read()
        if len(data) != last - start:
            raise TransientError(f"{len(data)} bytes came where {last - start} were announced")
        return RangeResponse(data, answer.headers.get("ETag"), _modified(answer), size)


async def get_document(
    url: str, *, headers: Mapping[str, str], policy: RetryPolicy, method: str = "GET"
) -> RangeResponse:
    """Ask once for a whole small document.

    Raises
    ------
    Refusal
        If the server answers with anything but data.
    """
    async with _session().request(
        method,
        URL(url, encoded=True),
        headers=dict(headers),
        timeout=_timeout(policy),
        proxy=proxy_for(url),
    ) as answer:
        if answer.status != 200:
            raise _refusal(answer)
        return RangeResponse(await answer.read())


def _modified(answer: Any) -> str | None:
    try:
        return parsedate_to_datetime(answer.headers["Last-Modified"]).isoformat()
    except (KeyError, ValueError):
        return None


def _refusal(answer: Any) -> Refusal:
    wait = parse_retry_after(answer.headers.get("Retry-After"), time.time())
    return Refusal(answer.status, wait)
