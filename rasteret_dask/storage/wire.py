"""HTTP/1.1 over bare connections: one range asked for, its bytes received where they stay.

What every HTTP client that was tried does beside that (pools of several kinds, hooks, redirects, a body in pieces) costs
several times the CPU of the request itself, and a build is mostly small requests: 480 headers took 105 ms by obstore and take
30 ms this way. Large ranges come this way as well, unless by TLS: the kernel wakes the loop for a quarter of a megabyte at a time,
where obstore takes them in small pieces, copies these together and wakes three threads. So this client reads plain answers
alone. Whatever else a server says is :class:`Unusual`, and another client asks again.

State: ``_pools`` holds the idle connections of each process, server and patience; it belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import numpy as np

from rasteret_dask.storage import trust
from rasteret_dask.storage.room import LEAST, room, watch

_HEAD: Final = 16384
"""Bytes of room for the head of an answer."""
_IDLE: Final = 50.0
"""Seconds after which an idle connection is closed."""
_PIECE: Final = 256 * 1024
"""Bytes that must have come before the loop is woken for more of a body. Each time costs a turn of the interpreter's lock, which threads
that decode want as well; the kernel keeps twice as much room for each connection. A megabyte gained nothing more."""


class Unusual(Exception):
    """A URL or an answer that this client does not deal with; another one does. Never leaves this room."""


def takes_large(url: str) -> bool:
    """Whether large ranges of a URL are best read here: TLS is undone a few kilobytes at a time, and only Linux wakes for pieces of TCP."""
    return url.startswith("http:") and sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said.

    Parameters
    ----------
    status : int
    fields : mapping
        Names in lower case.
    body : memoryview
        Empty unless the status is 206.
    """

    status: int
    fields: Mapping[str, str]
    body: memoryview


@dataclass(frozen=True, slots=True)
class _Host:
    """Where connections lead.

    Parameters
    ----------
    tls : bool
    name : str
    port : int, optional
    line : str
        As a request names it.
    literal : bool
        The name is an address.
    """

    tls: bool
    name: str
    port: int | None
    line: str
    literal: bool


_pools: dict[tuple[int, str, float], list[_Connection]] = {}


async def get_range(
    url: str, start: int, stop: int, *, headers: Mapping[str, str], stall: float
) -> Answer:
    """Ask once for bytes ``[start, stop)``.

    Parameters
    ----------
    url : str
        As it goes over the wire, percent-encoded.
    headers : mapping
        To be sent beside ``Range``.
    stall : float
        Seconds without a byte after which the answer is given up.

    Raises
    ------
    Unusual
        The answer is no plain one, or the URL needs more than a connection.
    OSError
        The connection failed; a `TimeoutError` when nothing came in time.
    """
    at = url.find("/", 8)
    host = _host(url[:at])
    request = _request(host, url[at:], start, stop, headers)
    pool = _pools.setdefault((os.getpid(), url[:at], stall), [])
    while pool:
        connection = pool.pop()
        if connection.open:
            try:
                return await connection.ask(request, stop - start, pool)
            except _Stale:
                continue
    async with asyncio.timeout(min(10.0, stall)):
        connection = await _connect(host, stall)
    return await connection.ask(request, stop - start, pool)


@lru_cache(maxsize=1024)
def _host(root: str) -> _Host:
    parts = urlsplit(root)
    if parts.scheme not in ("http", "https") or parts.hostname is None or "@" in parts.netloc:
        raise Unusual
    try:
        literal = bool(ipaddress.ip_address(parts.hostname))
    except ValueError:
        literal = False
    return _Host(parts.scheme == "https", parts.hostname, parts.port, parts.netloc, literal)


def _request(host: _Host, target: str, start: int, stop: int, headers: Mapping[str, str]) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    theirs = f"{host.line}{target}{''.join(headers)}{''.join(headers.values())}"
    if not (theirs.isascii() and theirs.isprintable()) or " " in target or "#" in target:
        raise Unusual
    return (
        f"GET {target} HTTP/1.1\r\nHost: {host.line}\r\nRange: bytes={start}-{stop - 1}\r\n"
        f"Accept-Encoding: identity\r\nUser-Agent: rasteret-dask\r\n{more}\r\n"
    ).encode("ascii")


async def _connect(host: _Host, stall: float) -> _Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: _Connection(loop, stall),
        host.name,
        host.port or (443 if host.tls else 80),
        ssl=trust.context() if host.tls else None,
        # Of an address there is nothing to choose from, and the race for one takes as long as connecting.
        happy_eyeballs_delay=None if host.literal else 0.25,
    )
    return connection


class _Stale(Exception):
    """A kept connection was closed by the other side before it answered; another one may ask."""


class _Connection(asyncio.BufferedProtocol):
    """One connection: asks for one thing at a time, and lies in its pool between two.

    Parameters
    ----------
    loop : AbstractEventLoop
    stall : float
        Seconds without a byte after which an answer is given up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stall: float) -> None:
        self.open = False
        self._loop = loop
        self._stall = stall
        self._asked = 0
        self._answer: asyncio.Future[Answer] | None = None
        self._latest = loop.time()
        self._size = 0
        self._rest = memoryview(bytearray(1))
        self._buffer = self._rest
        self._filled = 0
        self._begin = self._end = 0  # of the body, once the head has been read
        self._status = 0
        self._fields: dict[str, str] = {}
        self._keep = True
        self._least = 1
        self._socket: socket.socket | None = None

    async def ask(self, request: bytes, size: int, pool: list[_Connection]) -> Answer:
        """Send a request for ``size`` bytes and receive what is said; afterwards lie in the pool."""
        self._asked += 1
        # Room for a large body is made when it comes: who is silent holds none.
        self._size = size
        self._buffer = np.empty(_HEAD + (size if size < LEAST else 0), np.uint8).data
        self._filled = self._begin = self._end = 0
        self._latest = self._loop.time()
        self._answer = self._loop.create_future()
        self._transport.write(request)
        reusable = False
        try:
            answer = await self._answer
            reusable = self._keep and self.open
        finally:
            # An idle connection would otherwise hold on to its last answer, body and all.
            self._answer = None
            # Not when nobody waits any more: what still comes belongs to no other question.
            if reusable:
                pool.append(self)
            else:
                self.close()
        return answer

    def close(self) -> None:
        """End it at once."""
        self.open = False
        self._watch.cancel()
        self._transport.abort()

    # --- called by the loop ----------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if takes_large("http:") and transport.get_extra_info("sslcontext") is None:
            self._socket = transport.get_extra_info("socket")
        self.open = True
        self._watch = self._loop.call_later(self._stall, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; whoever waits is told."""
        self.open = False
        self._watch.cancel()
        unanswered = self._filled == self._end == 0 and self._asked > 1
        self._fail(_Stale() if unanswered else ConnectionResetError("the connection broke off"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of bytes that have come."""
        if self._answer is None or self._answer.done():
            self.close()  # nobody asked for them
            return
        self._latest = self._loop.time()
        self._filled += nbytes
        try:
            if self._end == 0 and not self._head():
                return
        except (Unusual, ValueError):
            self._fail(Unusual())
            return
        if self._filled < self._end:
            self._wake_at(min(self._end - self._filled, _PIECE))
            return
        self._wake_at(1)
        self._keep = self._keep and self._filled == self._end
        body = self._buffer[self._begin : self._end] if self._status == 206 else self._rest[:0]
        self._buffer = self._rest
        self._filled = 0
        self._answer.set_result(Answer(self._status, self._fields, body))

    def _wake_at(self, size: int) -> None:
        """Have the loop woken when so many bytes have come, or the connection has ended (``SO_RCVLOWAT``)."""
        if size != self._least and self._socket is not None:
            self._least = size
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def _head(self) -> bool:
        """Read the head, if it is all there."""
        known = bytes(self._buffer[: min(self._filled, _HEAD)])
        stop = known.find(b"\r\n\r\n")
        if stop < 0:
            if self._filled >= _HEAD:
                raise Unusual
            return False
        first, *lines = known[:stop].decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ", 2)
        fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        code = int(status)
        if version not in ("HTTP/1.1", "HTTP/1.0") or code < 200 or 300 <= code < 400:
            raise Unusual
        self._keep = version == "HTTP/1.1" and fields.get("connection", "").lower() != "close"
        self._status, self._fields = code, fields
        self._begin = stop + 4
        self._end = self._begin + self._length(code, fields)
        if self._end > len(self._buffer):
            self._move()
        return True

    def _move(self) -> None:
        """Go on in memory that the body has room in."""
        came = self._buffer[self._begin : self._filled]
        size = self._end - self._begin
        # One byte more than was announced can be told from none, and then the connection is not kept.
        self._buffer = room(size + 1)
        self._buffer[: len(came)] = came
        self._begin, self._end, self._filled = 0, size, len(came)
        watch(self._loop)

    def _length(self, status: int, fields: Mapping[str, str]) -> int:
        """Bytes of the body that are to be received."""
        most = self._size + _HEAD - self._begin
        plain = "transfer-encoding" not in fields and "content-length" in fields
        size = int(fields["content-length"]) if plain else most + 1
        if status == 206:
            if not 0 <= size <= most:
                raise Unusual
            return size
        # What a refusal says in its body is not read, unless the connection can be kept that way.
        if 0 <= size <= most and status != 200:
            return size
        self._keep = False
        return 0

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # it may be that nobody waits for it any more

    def _look(self) -> None:
        """Give up what has been silent for too long."""
        waiting = self._answer is not None and not self._answer.done()
        allowed = self._stall if waiting else _IDLE
        left = self._latest + allowed - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(min(left, self._stall), self._look)
        elif waiting and self._least > 1:
            # Bytes may have come, though too few to be woken for; the loop sees them before it looks again.
            self._wake_at(1)
            self._watch = self._loop.call_later(0.01, self._look)
        elif waiting:
            self._fail(TimeoutError("no answer in time"))
        else:
            self.close()
