"""The server behaves as object storage does; clients of the standard library are the oracle."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore.store import HTTPStore

from rasteret_dask.errors import ArgumentError
from rasteret_dask.testing.server import Fault, RangeServer, ServerError

CONTENT = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    (root / "sub").mkdir()
    (root / "sub" / "big file.bin").write_bytes(CONTENT)
    (root / "empty").write_bytes(b"")
    (root.parent / "outside").write_bytes(b"secret")
    return root


@pytest.fixture
def server(folder: Path) -> Iterator[RangeServer]:
    with RangeServer(folder, log=True) as running:
        yield running


def connect(server: RangeServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)


def ask(
    connection: http.client.HTTPConnection, path: str, span: str | None = None, method: str = "GET"
) -> tuple[int, http.client.HTTPMessage, bytes]:
    headers = {} if span is None else {"Range": f"bytes={span}"}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


BIG = "/sub/big%20file.bin"


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("0-0", slice(0, 1)),
        ("100-65635", slice(100, 65636)),
        ("1000-2999999", slice(1000, None)),
        ("2999990-9999999", slice(2999990, None)),
        ("7-", slice(7, None)),
        ("-10", slice(-10, None)),
    ],
)
def test_ranges(server: RangeServer, span: str, expected: slice) -> None:
    status, headers, body = ask(connect(server), BIG, span)
    assert status == 206
    assert body == CONTENT[expected]
    start, stop, _ = expected.indices(len(CONTENT))
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
    assert headers["ETag"]
    assert headers["Last-Modified"]


def test_many_requests_share_a_connection(server: RangeServer) -> None:
    connection = connect(server)
    for start in range(0, 3_000_000, 150_000):
        assert ask(connection, BIG, f"{start}-{start + 99_999}")[2] == CONTENT[start:][:100_000]
    assert ask(connection, BIG, method="HEAD")[1]["Content-Length"] == "3000000"
    counters = server.counters()
    assert counters.connections == 1
    assert counters.requests == 21
    assert counters.bytes == 20 * 100_000
    assert counters.paths == {"sub/big file.bin": 21}
    assert counters.methods == {"GET": 20, "HEAD": 1}
    server.reset()
    assert server.counters().requests == 0


def test_refusals(server: RangeServer) -> None:
    connection = connect(server)
    status, headers, _ = ask(connection, BIG, "3000000-")
    assert (status, headers["Content-Range"]) == (416, "bytes */3000000")
    assert ask(connection, "/nothing")[0] == 404
    assert ask(connection, "/sub")[0] == 404
    assert ask(connection, "/../outside")[0] == 404
    assert ask(connection, "/%2e%2e/outside")[0] == 404
    assert ask(connection, "/empty")[::2] == (200, b"")
    assert ask(connection, BIG, "0-1,5-6")[2] == CONTENT
    connection.request("PUT", BIG, body=b"x")
    assert connection.getresponse().status == 405


def test_conditions(server: RangeServer) -> None:
    connection = connect(server)
    etag = ask(connection, BIG, "0-0")[1]["ETag"]

    def conditional(name: str, value: str) -> int:
        connection.request("GET", BIG, headers={name: value, "Range": "bytes=0-9"})
        answer = connection.getresponse()
        answer.read()
        return answer.status

    assert conditional("If-Match", etag) == 206
    assert conditional("If-Match", '"other"') == 412
    assert conditional("If-None-Match", etag) == 304
    assert conditional("If-Range", '"other"') == 200


def test_a_changed_file_is_served_anew(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"one")
    with RangeServer(tmp_path) as server:
        connection = connect(server)
        _, before, body = ask(connection, "/f")
        assert body == b"one"
        (tmp_path / "f").write_bytes(b"other")
        _, after, body = ask(connection, "/f")
        assert body == b"other"
        assert before["ETag"] != after["ETag"]


def test_latency_holds_up_nobody_else(server: RangeServer) -> None:
    server.configure(latency=1.0)
    threads = [
        threading.Thread(target=lambda: ask(connect(server), BIG, "0-99")) for _ in range(20)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    assert elapsed >= 1.0
    assert server.counters().peak_in_flight == 20
    log = server.log()
    assert len(log) == 20
    assert all(entry.t_end - entry.t_start >= 0.29 for entry in log)
    # At one moment all of them were under way.
    assert max(entry.t_start for entry in log) < min(entry.t_end for entry in log)


def test_connect_latency_is_paid_once(server: RangeServer) -> None:
    server.configure(connect_latency=0.2)
    connection = connect(server)
    for _ in range(3):
        ask(connection, BIG, "0-9")
    first, *others = (entry.t_end - entry.t_start for entry in server.log())
    assert first >= 0.19
    assert sum(others) < 0.19


def test_aliases(server: RangeServer) -> None:
    server.configure(aliases={f"scene/{n}.tif": "sub/big file.bin" for n in range(1000)})
    assert ask(connect(server), "/scene/17.tif", "5-9")[2] == CONTENT[5:10]
    assert server.counters().paths == {"scene/17.tif": 1}


def test_pipelined_requests_are_answered_in_order(server: RangeServer) -> None:
    server.configure(latency=0.01)
    wanted = b"".join(
        f"GET {BIG} HTTP/1.1\r\nHost: x\r\nRange: bytes={n}-{n}\r\n\r\n".encode() for n in range(10)
    )
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(wanted)
        raw.settimeout(10)
        received = b""
        while received.count(b"\r\n\r\n") < 10 or not received.endswith(CONTENT[9:10]):
            received += raw.recv(65536)
    parts = [part[:1] for part in received.split(b"\r\n\r\n")[1:]]
    assert b"".join(parts) == CONTENT[:10]


def test_more_than_it_bears_is_refused(server: RangeServer) -> None:
    server.configure(latency=0.2, bears=2)
    connections = [connect(server) for _ in range(5)]
    for connection in connections:
        connection.request("GET", BIG, headers={"Range": "bytes=0-9"})
    answers = [connection.getresponse() for connection in connections]
    assert sorted(answer.status for answer in answers) == [206, 206, 429, 429, 429]
    assert ask(connect(server), BIG, "0-9")[0] == 206


class TestFaults:
    def test_503_for_the_first_two(self, server: RangeServer) -> None:
        server.configure(faults=[Fault("status", first=2, retry_after=0.5)])
        connection = connect(server)
        answers = [ask(connection, BIG, "0-9") for _ in range(4)]
        assert [status for status, *_ in answers] == [503, 503, 206, 206]
        assert answers[0][1]["Retry-After"] == "0.5"
        assert server.counters().statuses == {503: 2, 206: 2}

    def test_a_rate_depends_on_the_seed_alone(self, server: RangeServer) -> None:
        def hits(seed: int) -> list[int]:
            server.configure(faults=[Fault("status", rate=0.2, seed=seed)])
            connection = connect(server)
            return [n for n in range(500) if ask(connection, BIG, f"{n}-{n}")[0] == 503]

        first = hits(1)
        assert first == hits(1)
        assert first != hits(2)
        assert 50 < len(first) < 150

    def test_match(self, server: RangeServer) -> None:
        server.configure(faults=[Fault("status", match="sub/*", status=404)])
        assert ask(connect(server), BIG)[0] == 404
        assert ask(connect(server), "/empty")[0] == 200

    def test_range_ignored(self, server: RangeServer) -> None:
        server.configure(faults=[Fault("ignore_range")])
        status, headers, body = ask(connect(server), BIG, "0-9")
        assert status == 200
        assert "Content-Range" not in headers
        assert body == CONTENT

    @pytest.mark.parametrize("span", ["0-999", "0-999999"])
    def test_truncated(self, server: RangeServer, span: str) -> None:
        server.configure(faults=[Fault("truncate")])
        with pytest.raises(http.client.IncompleteRead):
            ask(connect(server), BIG, span)
        server.configure(faults=[])
        assert ask(connect(server), BIG, span)[0] == 206

    def test_reset(self, server: RangeServer) -> None:
        server.configure(faults=[Fault("reset")])
        with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
            ask(connect(server), BIG, "0-9")

    def test_stalled(self, server: RangeServer) -> None:
        server.configure(faults=[Fault("stall")])
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=0.2)
        with pytest.raises(TimeoutError):
            ask(connection, BIG, "0-9")
        connection.close()

    def test_corrupt(self, server: RangeServer) -> None:
        server.configure(faults=[Fault("corrupt")])
        _, _, body = ask(connect(server), BIG, "0-99")
        assert body[:84] == CONTENT[:84]
        assert body[84:] != CONTENT[84:100]

    def test_unknown(self) -> None:
        with pytest.raises(ArgumentError, match="unknown fault"):
            Fault("explode")


def test_tls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RangeServer(folder, tls=True) as server:
        assert server.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(server.certificate))
        with urllib.request.urlopen(server.url + BIG, context=trusting) as answer:
            assert answer.read() == CONTENT
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(server.url + BIG)
        certificate = server.certificate
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # rustls is stricter than OpenSSL
        store = HTTPStore(server.url)
        assert bytes(store.get_range("sub/big file.bin", start=0, end=10)) == CONTENT[:10]
    assert certificate is not None
    assert not certificate.exists()


def test_stopping(folder: Path) -> None:
    server = RangeServer(folder).start()
    pid = server.pid
    assert server.url_of(folder / "sub" / "big file.bin").endswith(BIG)
    server.stop()
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ServerError, match="not running"):
        server.counters()


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="not a directory"):
        RangeServer(tmp_path / "nothing")
