"""The process behind :class:`rasteret_dask.testing.server.RangeServer`.

Run as a script, by path, with nothing but the standard library, so that it starts in a tenth of a second and never imports its caller's
``__main__``. Commands come as JSON lines on stdin, answers leave on stdout, and the end of stdin is the end of the process: a caller that
dies leaves no server behind.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
import mmap
import os
import ssl
import sys
import zlib
from collections import Counter
from email.utils import formatdate
from fnmatch import fnmatchcase
from http import HTTPStatus
from time import perf_counter
from typing import Any
from urllib.parse import unquote

_PIECE = 1 << 18  # bytes handed to the socket at once
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class File:
    """A file mapped into memory, with the head lines that its answers share."""

    def __init__(self, path: str, stat: os.stat_result) -> None:
        self.key = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        self.size = stat.st_size
        self.etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        if self.size:
            with open(path, "rb") as stream:
                self.view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        else:
            self.view = memoryview(b"")
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        changed = formatdate(stat.st_mtime, usegmt=True)
        self.head = (
            f"Content-Type: {kind}\r\nAccept-Ranges: bytes\r\n"
            f"ETag: {self.etag}\r\nLast-Modified: {changed}\r\n"
        )


class State:
    """What all connections share: settings, counters, open files."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.root = os.path.realpath(config["directory"])
        self.aliases: dict[str, str] = {}
        self.latency = self.connect_latency = 0.0
        self.faults: list[dict[str, Any]] = []
        self.attempts: Counter[str] = Counter()
        self.keep_log = False
        self.files: dict[str, File] = {}
        self.bears: int | None = None
        self.in_flight = self.served = 0
        self.reset()
        self.configure(config)

    def configure(self, config: dict[str, Any]) -> None:
        self.latency = config.get("latency", self.latency)
        self.connect_latency = config.get("connect_latency", self.connect_latency)
        self.keep_log = config.get("log", self.keep_log)
        self.bears = config.get("bears", self.bears)
        self.aliases.update(config.get("aliases", {}))
        if "faults" in config:
            self.faults = config["faults"]
            self.attempts.clear()

    def reset(self) -> None:
        self.requests = self.bytes = self.connections = 0
        self.peak = self.in_flight
        self.paths, self.methods = Counter[str](), Counter[str]()
        self.statuses: Counter[int] = Counter()
        self.log: list[tuple[str, str, int, int, int, float, float]] = []

    def counters(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "bytes": self.bytes,
            "connections": self.connections,
            "peak_in_flight": self.peak,
            "paths": self.paths,
            "methods": self.methods,
            "statuses": self.statuses,
        }

    def open(self, name: str) -> File | None:
        """The file behind a URL's path, mapped anew when it has changed."""
        path = os.path.normpath(os.path.join(self.root, self.aliases.get(name, name)))
        if not path.startswith(self.root + os.sep):
            return None
        try:
            stat = os.stat(path)
        except OSError:
            return None
        known = self.files.get(path)
        if known is not None and known.key == (stat.st_mtime_ns, stat.st_size, stat.st_ino):
            return known
        if not os.path.isfile(path):
            return None
        self.files[path] = File(path, stat)
        return self.files[path]

    def fault(self, name: str, asked: str) -> dict[str, Any] | None:
        """The first rule that hits this request, whatever the order of arrival."""
        if not self.faults:
            return None
        key = f"{name}|{asked}"
        attempt = self.attempts[key]
        self.attempts[key] += 1
        for number, rule in enumerate(self.faults):
            late = rule["first"] is not None and attempt >= rule["first"]
            if late or not fnmatchcase(name, rule["match"]):
                continue
            drawn = zlib.crc32(f"{rule['seed']}|{number}|{key}|{attempt}".encode()) / 2**32
            if drawn < rule["rate"]:
                return rule
        return None


class Connection(asyncio.Protocol):
    """One keep-alive connection; its requests are answered in turn."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = b""
        self.busy = self.borne = False
        self.fresh = True
        self.close_after = False
        self.rest: memoryview | None = None
        self.entry: tuple[str, str, int, int, int, float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.paused = False
        self.state.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            self.finish(lost=True)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.rest is not None:
            self.pump()

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        if not self.busy:
            self.next_request()

    def next_request(self) -> None:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head, self.buffer = self.buffer[:end].decode("latin-1"), self.buffer[end + 4 :]
        started = perf_counter()
        state = self.state
        self.busy = True
        state.requests += 1
        state.in_flight += 1
        if state.in_flight > state.peak:
            state.peak = state.in_flight
        self.borne = state.bears is None or state.served < state.bears
        state.served += self.borne
        delay = state.latency
        if self.fresh:
            self.fresh = False
            delay += state.connect_latency
        if delay > 0:
            self.loop.call_later(delay, self.respond, head, started)
        else:
            self.respond(head, started)

    def respond(self, head: str, started: float) -> None:
        if self.transport.is_closing():
            return
        line, _, rest = head.partition("\r\n")
        words = line.split(" ")
        if len(words) != 3:
            self.close_after = True
            self.answer("GET", "", 400, "", started)
            return
        method, target, version = words
        lines = (line.partition(":") for line in rest.split("\r\n"))
        headers = {name.strip().lower(): value.strip() for name, colon, value in lines if colon}
        asked_to = headers.get("connection", "").lower()
        self.close_after = asked_to == "close" or (
            version == "HTTP/1.0" and asked_to != "keep-alive"
        )
        name = unquote(target.partition("?")[0]).lstrip("/")
        if not self.borne:
            self.answer(method, name, 429, "", started)
            return
        if method not in ("GET", "HEAD"):
            # Its body, if it has one, is not ours to parse.
            self.close_after = True
            self.answer(method, name, 405, "Allow: GET, HEAD\r\n", started)
            return
        rule = self.state.fault(name, headers.get("range", ""))
        kind = rule["kind"] if rule else None
        if rule and kind == "reset":
            self.transport.abort()
        elif rule and kind == "status":
            pause = rule["retry_after"]
            extra = "" if pause is None else f"Retry-After: {pause:g}\r\n"
            self.answer(method, name, rule["status"], extra, started)
        else:
            self.serve(method, name, headers, kind, started)

    def serve(
        self, method: str, name: str, headers: dict[str, str], fault: str | None, started: float
    ) -> None:
        file = self.state.open(name)
        if file is None:
            self.answer(method, name, 404, "", started)
            return
        if "if-match" in headers and headers["if-match"] not in ("*", file.etag):
            self.answer(method, name, 412, file.head, started)
            return
        if headers.get("if-none-match") == file.etag:
            self.answer(method, name, 304, file.head, started)
            return
        asked = None if fault == "ignore_range" else headers.get("range")
        if asked is not None and headers.get("if-range", file.etag) != file.etag:
            asked = None
        start, stop, status = 0, file.size, 200
        if asked is not None:
            span = _parse_range(asked, file.size)
            if span == (0, 0):
                extra = f"Content-Range: bytes */{file.size}\r\n"
                self.answer(method, name, 416, extra, started)
                return
            if span is not None:
                (start, stop), status = span, 206
        extra = file.head
        if status == 206:
            extra += f"Content-Range: bytes {start}-{stop - 1}/{file.size}\r\n"
        body = file.view[start:stop]
        self.answer(method, name, status, extra, started, body, start, fault)

    def answer(
        self,
        method: str,
        name: str,
        status: int,
        extra: str,
        started: float,
        body: memoryview | None = None,
        start: int = 0,
        fault: str | None = None,
    ) -> None:
        state = self.state
        state.paths[name] += 1
        state.methods[method] += 1
        state.statuses[status] += 1
        content = memoryview(b"") if body is None else body
        length = len(content)
        if method == "HEAD":
            content = content[:0]
        elif fault in ("truncate", "stall"):
            content = content[: length // 2]
            self.close_after = True
        elif fault == "corrupt":
            content = memoryview(bytes(content[:-16]) + bytes(b ^ 0xFF for b in content[-16:]))
        keep = "close" if self.close_after and fault not in ("truncate", "stall") else "keep-alive"
        self.entry = (method, name, start, start + length, status, started)
        reason = _REASONS.get(status, "Status")
        head = (
            f"HTTP/1.1 {status} {reason}\r\n{extra}"
            f"Content-Length: {length}\r\nConnection: {keep}\r\n\r\n"
        )
        if fault == "stall":
            # The connection stays open and silent until the client gives up.
            self.close_after = False
            state.bytes += len(content)
            self.transport.write(head.encode("latin-1"))
            self.transport.write(content)
            return
        if len(content) <= 65536:
            # One send for a small answer: half the system calls.
            state.bytes += len(content)
            self.transport.write(head.encode("latin-1") + content)
            self.finish()
            return
        self.transport.write(head.encode("latin-1"))
        self.rest = content
        self.pump()

    def pump(self) -> None:
        """Hand the body over piece by piece, waiting whenever the socket is full."""
        rest = self.rest
        while rest is not None and len(rest) and not self.paused:
            piece, rest = rest[:_PIECE], rest[_PIECE:]
            self.state.bytes += len(piece)
            self.rest = rest
            self.transport.write(piece)
        if rest is not None and not len(rest):
            self.rest = None
            self.finish()

    def finish(self, lost: bool = False) -> None:
        state = self.state
        state.in_flight -= 1
        state.served -= self.borne
        self.busy = False
        self.rest = None
        if state.keep_log and self.entry is not None:
            state.log.append((*self.entry, perf_counter()))
        self.entry = None
        if lost:
            return
        if self.close_after:
            self.transport.close()
        elif self.buffer:
            self.next_request()


def _parse_range(text: str, size: int) -> tuple[int, int] | None:
    """``(start, stop)``; None when it is to be ignored, ``(0, 0)`` when it cannot be satisfied."""
    unit, _, span = text.partition("=")
    first, dash, last = span.partition("-")
    if unit.strip() != "bytes" or not dash or "," in span:
        return None
    try:
        if not first:
            start, stop = max(0, size - int(last)), size
        else:
            start = int(first)
            stop = min(size, int(last) + 1) if last.strip() else size
    except ValueError:
        return None
    return (start, stop) if start < stop else (0, 0)


class Control(asyncio.Protocol):
    """Commands from the process that owns this one."""

    def __init__(self, state: State, done: asyncio.Event) -> None:
        self.state = state
        self.done = done
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            _say(self.obey(json.loads(line)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.done.set()

    def obey(self, command: dict[str, Any]) -> Any:
        verb = command["do"]
        if verb == "counters":
            return self.state.counters()
        if verb == "log":
            return self.state.log
        if verb == "reset":
            self.state.reset()
        elif verb == "configure":
            self.state.configure(command["with"])
        return True


def _say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _main(config: dict[str, Any]) -> None:
    state = State(config)
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    context = None
    if config.get("certificate"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config["certificate"], config["key"])
    server = await loop.create_server(
        lambda: Connection(state), "127.0.0.1", config.get("port", 0), ssl=context, backlog=1024
    )
    await loop.connect_read_pipe(lambda: Control(state, done), sys.stdin)
    _say({"port": server.sockets[0].getsockname()[1]})
    await done.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.stdin.readline())))
