"""Files created in a store that is busy, slow, or loses its answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest

from rasteret_dask.errors import CollectionError
from rasteret_dask.index.commit import Commit, read_commit, write_commit
from rasteret_dask.index.place import Place
from rasteret_dask.model import RetryPolicy, StorageOptions


class Bucket(ThreadingHTTPServer):
    """As much of S3 as a conditional put needs; each of `trouble` befalls one request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.trouble: list[str] = []
        self.puts = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def place(self, **retry: Any) -> Place:
        policy = RetryPolicy(**{"base": 0.01, "cap": 0.02, **retry})
        options = {
            "endpoint": f"http://127.0.0.1:{self.server_port}",
            "region": "us-east-1",
            "virtual_hosted_style_request": "false",
        }
        return Place("s3://bucket/work", StorageOptions(options=options, retry=policy))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Bucket

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_PUT(self) -> None:
        self.server.puts += 1
        trouble = self.server.trouble.pop(0) if self.server.trouble else ""
        if trouble == "slow":
            time.sleep(0.8)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["If-None-Match"] == "*"
        if trouble == "busy":
            self.answer(503)
            return
        if self.path in self.server.files:
            self.answer(412)
            return
        self.server.files[self.path] = body
        self.answer(500 if trouble == "lost" else 200)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    with Bucket() as server:
        yield server


def test_a_busy_store_is_asked_again(bucket: Bucket) -> None:
    bucket.trouble = ["busy", "busy"]
    assert bucket.place().create("a/b", b"12")
    assert bucket.files == {"/bucket/work/a/b": b"12"}
    assert not bucket.place().create("a/b", b"34")
    assert bucket.files == {"/bucket/work/a/b": b"12"}


def test_a_store_that_stays_busy_is_named(bucket: Bucket) -> None:
    bucket.trouble = ["busy"] * 9
    with pytest.raises(CollectionError, match="refused a/b"):
        bucket.place(attempts=3).create("a/b", b"12")
    assert bucket.puts == 3


def test_nothing_comes_while_a_body_is_sent_and_that_is_no_stall(bucket: Bucket) -> None:
    bucket.trouble = ["slow"]
    data = bytes(12_000_000)  # more than lies between the two
    assert bucket.place(stall=0.4, attempts=1).create("large", data)
    assert len(bucket.files["/bucket/work/large"]) == len(data)


def test_a_commit_whose_answer_was_lost_stands(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Commit(1, "c", "i", {}, "data/00000001", {"schema_version": 1, "bands": []}, ())
    path = "/bucket/work/_rasteret/commits/00000001.json"
    monkeypatch.setattr(Place, "read", lambda self, name: bucket.files[path])
    monkeypatch.setattr("rasteret_dask.index.commit.publish", lambda place, commit: None)
    bucket.trouble = ["lost"]
    place = bucket.place()
    assert write_commit(place, commit) == commit == read_commit(place, 1)
    assert bucket.puts == 2
