"""Our own HTTP against servers that are honest, odd, slow and rude: the bytes are right, or another client asks again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted import Answer, Asked, Scripted, part

from rasteret_dask.errors import SourceError, TransientError
from rasteret_dask.model import RatePolicy, RetryPolicy, StorageOptions
from rasteret_dask.storage import counters, trust, wire
from rasteret_dask.storage.loop import get_loop, run
from rasteret_dask.storage.source import read_range
from rasteret_dask.testing.server import RangeServer

CONTENT = bytes(range(256)) * 40
RETRY = RetryPolicy(attempts=3, base=0.001, cap=0.002)


def options(number: int, retry: RetryPolicy = RETRY) -> StorageOptions:
    return StorageOptions(retry=retry, rate=RatePolicy(budget=20_000_000 + number))


def said(start: int, stop: int, extra: str = "", length: int | None = None) -> bytes:
    """The right answer, as bytes."""
    head = (
        f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/{len(CONTENT)}\r\n"
        f"Content-Length: {stop - start if length is None else length}\r\n{extra}\r\n"
    )
    return head.encode() + CONTENT[start:stop]


Talk = Callable[[socket.socket, int], None]


class Bare:
    """A server that is a function of a connection and its number."""

    def __init__(self, talk: Talk) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._talk = talk
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(
                target=self._one, args=(connection, self.connections - 1), daemon=True
            ).start()

    def _one(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            self._talk(connection, number)

    def __enter__(self) -> Bare:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()


def asked(connection: socket.socket) -> bytes:
    """One request; empty when the other side has hung up."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    return data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a b%.bin").write_bytes(CONTENT)
    return tmp_path


def test_connections_are_kept_and_counted(folder: Path) -> None:
    async def several(url: str) -> list[bytes]:
        one_by_one = [await read_range(url, k, k + 50, options=options(1)) for k in range(20)]
        together = await asyncio.gather(
            *(read_range(url, k, k + 50, options=options(1)) for k in range(20, 40))
        )
        return [bytes(found.data) for found in (*one_by_one, *together)]

    with RangeServer(folder) as server:
        before = counters.snapshot()
        found = run(several(server.url_of("a b%.bin")))
        spent = counters.snapshot() - before
        seen = server.counters()
    assert found == [CONTENT[k : k + 50] for k in range(40)]
    assert (spent.requests, spent.bytes, seen.requests) == (40, 2000, 40)
    assert 1 <= seen.connections <= 20


def test_the_end_of_a_file_and_what_is_said_of_it(folder: Path) -> None:
    with RangeServer(folder) as server:
        found = run(read_range(server.url_of("a b%.bin"), 10_000, 20_000, options=options(2)))
    assert bytes(found.data) == CONTENT[10_000:]
    assert found.size == len(CONTENT)
    assert found.last_modified is None or found.last_modified.endswith("+00:00")


def test_a_head_that_comes_in_crumbs() -> None:
    def talk(connection: socket.socket, number: int) -> None:
        while asked(connection):
            for byte in said(5, 90):
                connection.sendall(bytes([byte]))

    with Bare(talk) as server:
        for _ in range(2):
            found = run(read_range(f"{server.url}/a", 5, 90, options=options(3)))
            assert bytes(found.data) == CONTENT[5:90]


@pytest.mark.parametrize("polite", [True, False], ids=["announced", "unannounced"])
def test_a_server_that_hangs_up_after_each_answer(polite: bool) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        asked(connection)
        connection.sendall(said(0, 9, "Connection: close\r\n" if polite else ""))

    with Bare(talk) as server:
        before = counters.snapshot()
        for _ in range(5):
            found = run(read_range(f"{server.url}/a", 0, 9, options=options(4)))
            assert bytes(found.data) == CONTENT[:9]
        spent = counters.snapshot() - before
    # That a kept connection had been closed meanwhile is nobody's failure.
    assert (spent.requests, spent.retries) == (5, 0)
    assert server.connections == 5


def test_a_kept_connection_that_ends_when_it_is_asked() -> None:
    def talk(connection: socket.socket, number: int) -> None:
        asked(connection)
        connection.sendall(said(0, 9))
        asked(connection)  # and no answer

    with Bare(talk) as server:
        before = counters.snapshot()
        for _ in range(3):
            assert bytes(run(read_range(f"{server.url}/a", 0, 9, options=options(5))).data)
        spent = counters.snapshot() - before
    assert (spent.requests, spent.retries) == (3, 0)
    assert server.connections == 3


def test_more_than_was_announced_is_nobody_elses() -> None:
    def talk(connection: socket.socket, number: int) -> None:
        while (text := asked(connection)) != b"":
            start = int(text.split(b"bytes=")[1].split(b"-")[0])
            connection.sendall(said(start, start + 9) + said(100, 109))

    with Bare(talk) as server:
        for start in (0, 20, 40):
            found = run(read_range(f"{server.url}/a", start, start + 9, options=options(6)))
            assert bytes(found.data) == CONTENT[start : start + 9]
    assert server.connections == 3


def test_silence_is_given_up_and_asked_again() -> None:
    def talk(connection: socket.socket, number: int) -> None:
        asked(connection)
        if number == 0:
            connection.sendall(said(0, 9)[:-4])
            asked(connection)  # until the other side hangs up
        connection.sendall(said(0, 9))

    short = RetryPolicy(attempts=3, base=0.001, cap=0.002, stall=0.3)
    with Bare(talk) as server:
        before = counters.snapshot()
        found = run(read_range(f"{server.url}/a", 0, 9, options=options(7, short)))
        spent = counters.snapshot() - before
    assert bytes(found.data) == CONTENT[:9]
    assert (spent.requests, spent.retries) == (2, 1)


def test_an_answer_that_nobody_waits_for_reaches_nobody_else() -> None:
    late = threading.Event()

    def talk(connection: socket.socket, number: int) -> None:
        while (text := asked(connection)) != b"":
            start = int(text.split(b"bytes=")[1].split(b"-")[0])
            if start == 0:
                late.wait(30)
            connection.sendall(said(start, start + 9))

    async def given_up(url: str) -> bytes:
        first = asyncio.create_task(read_range(url, 0, 9, options=options(8)))
        await asyncio.sleep(0.2)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        late.set()
        return bytes((await read_range(url, 50, 59, options=options(8))).data)

    with Bare(talk) as server:
        before = counters.snapshot()
        assert run(given_up(f"{server.url}/a")) == CONTENT[50:59]
        assert (counters.snapshot() - before).retries == 0


def chunked(start: int, stop: int) -> bytes:
    head, _, body = said(start, stop).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    size = f"{len(body):x}".encode()
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", size, body, b"0", b"", b""])


@pytest.mark.parametrize("way", ["chunked", "hint"])
def test_what_is_not_plain_is_left_to_another_client(way: str) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

    def talk(connection: socket.socket, number: int) -> None:
        while asked(connection):
            connection.sendall(chunked(0, 90) if way == "chunked" else hint + said(0, 90))

    with Bare(talk) as server:
        for _ in range(5):
            found = run(read_range(f"{server.url}/a", 0, 90, options=options(9)))
            assert bytes(found.data) == CONTENT[:90]
        # Each of the first three was asked for twice; then the server is known.
        assert server.connections <= 4


def test_redirects_are_followed() -> None:
    def answer(question: Asked, number: int) -> Answer:
        if question.target == "/old":
            return Answer(302, headers={"Location": "/new"})
        return part(question, CONTENT)

    with Scripted(answer) as server:
        found = run(read_range(f"{server.url}/old", 3, 30, options=options(10)))
    assert bytes(found.data) == CONTENT[3:30]


def test_a_whole_file_is_not_received() -> None:
    def talk(connection: socket.socket, number: int) -> None:
        asked(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(1000):
                connection.sendall(bytes(1_000_000))

    with Bare(talk) as server, pytest.raises(Exception, match="ignores Range"):
        run(read_range(f"{server.url}/a", 0, 9, options=options(11)))


@pytest.fixture
def trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    with RangeServer(folder, tls=True) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        monkeypatch.setattr(trust, "_contexts", {})
        yield server


def test_tls(trusted: RangeServer) -> None:
    url = trusted.url_of("a b%.bin")
    assert url.startswith("https:")
    for _ in range(3):
        assert bytes(run(read_range(url, 7, 70, options=options(12))).data) == CONTENT[7:70]
    assert trusted.counters().connections == 1


def test_a_certificate_of_nobody_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_contexts", {})
    with (
        RangeServer(folder, tls=True) as server,
        pytest.raises(TransientError, match="SSLCertVerificationError"),
    ):
        run(read_range(server.url_of("a b%.bin"), 0, 9, options=options(13)))


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("ftp://h/a", {}),
        ("http://user:word@h/a", {}),
        ("http://h/a b", {}),
        ("http://h/ä", {}),
        ("http://h/a\r\nX: 1", {}),
        ("http://h/a", {"X": "1\r\nY: 2"}),
        ("http:///a", {}),
    ],
)
def test_what_does_not_fit_into_a_request_is_not_sent(url: str, headers: dict[str, str]) -> None:
    with pytest.raises(wire.Unusual):
        run(wire.get_range(url, 0, 9, headers=headers, stall=1.0))


def test_idle_connections_are_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_IDLE", 0.05)
    short = RetryPolicy(attempts=3, stall=0.5)
    with RangeServer(folder) as server:
        url = server.url_of("a b%.bin")
        run(read_range(url, 0, 9, options=options(14, short)))
        (pool,) = [pool for (_, root, _), pool in wire._pools.items() if url.startswith(root)]
        until = time.monotonic() + 30
        while any(connection.open for connection in pool) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(connection.open for connection in pool)
        run(read_range(url, 0, 9, options=options(14, short)))
        assert server.counters().connections == 2


LARGE = CONTENT * 90
"""Most of a megabyte: the kernel wakes the loop for a part of it at a time."""
_ENTIRE = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-{len(LARGE) - 1}/{len(LARGE)}\r\nContent-Length: {len(LARGE)}\r\n\r\n"


def test_a_large_range_that_trickles_is_not_taken_for_silence() -> None:
    def talk(connection: socket.socket, number: int) -> None:
        asked(connection)
        connection.sendall(_ENTIRE.encode() + LARGE[:1000])
        # Too little to be woken for, over longer than silence is borne.
        for start in range(1000, 11_000, 1000):
            time.sleep(0.2)
            connection.sendall(LARGE[start : start + 1000])
        connection.sendall(LARGE[11_000:])
        asked(connection)

    short = RetryPolicy(attempts=1, stall=0.8)
    with Bare(talk) as server:
        found = run(read_range(f"{server.url}/a", 0, len(LARGE), options=options(15, short)))
    assert bytes(found.data) == LARGE


@pytest.mark.parametrize("rude", ["silent", "gone"])
def test_a_large_range_that_stays_away_is_asked_for_again(rude: str) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        asked(connection)
        if number == 0:
            connection.sendall(_ENTIRE.encode() + LARGE[:300_000])
            if rude == "gone":
                return
            asked(connection)  # until the other side hangs up
        connection.sendall(_ENTIRE.encode() + LARGE)
        asked(connection)

    short = RetryPolicy(attempts=3, base=0.001, cap=0.002, stall=0.3)
    with Bare(talk) as server:
        before = counters.snapshot()
        url = f"{server.url}/a"
        found = run(read_range(url, 0, len(LARGE), options=options(16 + (rude == "gone"), short)))
        spent = counters.snapshot() - before
    assert bytes(found.data) == LARGE
    assert (spent.requests, spent.retries, server.connections) == (2, 1, 2)


def test_a_large_range_whose_head_comes_alone() -> None:
    head = _ENTIRE.encode()

    def talk(connection: socket.socket, number: int) -> None:
        while asked(connection):
            connection.sendall(head)
            time.sleep(0.1)
            if number == 1:
                return
            connection.sendall(LARGE)
            if number == 0:
                asked(connection)
                connection.sendall(head)
                time.sleep(0.1)
                return

    with Bare(talk) as server:
        before = counters.snapshot()
        for _ in range(2):
            found = run(read_range(f"{server.url}/a", 0, len(LARGE), options=options(19)))
            assert bytes(found.data) == LARGE
        spent = counters.snapshot() - before
    assert (spent.requests, spent.retries, server.connections) == (4, 2, 3)


def test_more_than_a_large_range_is_nobody_elses() -> None:
    def talk(connection: socket.socket, number: int) -> None:
        while asked(connection):
            connection.sendall(_ENTIRE.encode() + LARGE + said(0, 9))

    with Bare(talk) as server:
        for _ in range(3):
            found = run(read_range(f"{server.url}/a", 0, len(LARGE), options=options(22)))
            assert bytes(found.data) == LARGE
    assert server.connections == 3


def test_a_large_question_with_a_small_answer() -> None:
    """The file ends: all of it comes with the head, where it has room."""

    def talk(connection: socket.socket, number: int) -> None:
        while asked(connection):
            connection.sendall(said(10_000, len(CONTENT)))

    with Bare(talk) as server:
        for _ in range(2):
            found = run(read_range(f"{server.url}/a", 10_000, len(LARGE), options=options(23)))
            assert bytes(found.data) == CONTENT[10_000:]
    assert server.connections == 1


def test_a_refusal_with_much_to_read_leaves_its_connection() -> None:
    def talk(connection: socket.socket, number: int) -> None:
        text = asked(connection)
        assert b"/no " in text
        connection.sendall(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
        )
        asked(connection)
        connection.sendall(_ENTIRE.encode() + LARGE)
        asked(connection)

    with Bare(talk) as server:
        with pytest.raises(SourceError, match="404"):
            run(read_range(f"{server.url}/no", 0, len(LARGE), options=options(20)))
        found = run(read_range(f"{server.url}/a", 0, len(LARGE), options=options(20)))
    assert bytes(found.data) == LARGE
    assert server.connections == 1


def test_who_is_silent_holds_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[int] = []
    monkeypatch.setattr(
        wire, "room", lambda size: (asked_for.append(size), memoryview(bytearray(size)))[1]
    )
    said_all, heard = threading.Event(), threading.Event()

    def talk(connection: socket.socket, number: int) -> None:
        asked(connection)
        heard.set()
        said_all.wait(30)
        connection.sendall(_ENTIRE.encode() + LARGE)
        asked(connection)

    with Bare(talk) as server:
        pending = asyncio.run_coroutine_threadsafe(
            read_range(f"{server.url}/a", 0, len(LARGE), options=options(21)), get_loop()
        )
        assert heard.wait(30)
        assert asked_for == []
        said_all.set()
        assert bytes(pending.result(30).data) == LARGE
    assert asked_for == [len(LARGE) + 1]


def test_a_connection_serves_small_ranges_after_large_ones(folder: Path) -> None:
    (folder / "large.bin").write_bytes(LARGE)

    async def in_turn(url: str) -> None:
        for start, stop in [(0, len(LARGE)), (5, 9), (100, 600_000), (7, 8)]:
            found = await read_range(url, start, stop, options=options(18))
            assert bytes(found.data) == LARGE[start:stop]

    with RangeServer(folder) as server:
        run(in_turn(server.url_of("large.bin")))
        assert server.counters().connections == 1
