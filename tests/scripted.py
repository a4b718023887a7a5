"""A server in a thread whose answers a test writes itself, for what no honest server does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    at: float

    @property
    def span(self) -> tuple[int, int]:
        """``[start, stop)`` of its range."""
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        return int(first), int(last) + 1


@dataclass
class Answer:
    """What to say; ``length`` announces another size than the body has."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


def part(asked: Asked, content: bytes) -> Answer:
    """The right answer to a range request."""
    start, stop = asked.span
    stop = min(stop, len(content))
    span = f"bytes {start}-{stop - 1}/{len(content)}"
    return Answer(206, content[start:stop], {"Content-Range": span, "ETag": '"1"'})


class Scripted:
    """``with Scripted(answer) as server``: ``answer(asked, number)`` is called for every request."""

    def __init__(self, answer: Callable[[Asked, int], Answer]) -> None:
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                headers = {name.title(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, time.monotonic())
                with owner._lock:
                    number = len(owner.asked)
                    owner.asked.append(asked)
                said = answer(asked, number)
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                size = len(said.body) if said.length is None else said.length
                self.send_header("Content-Length", str(size))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(said.body)
                if size != len(said.body):
                    self.close_connection = True

            do_GET = do_POST = do_HEAD = _serve

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
