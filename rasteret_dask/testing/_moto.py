"""moto's S3 server with writes one at a time: S3 promises that of many conditional puts one succeeds, moto looks first and puts later (in 4
of 2,565 races on a loaded machine two of three writers won). A program: ``python _moto.py PORT``."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

moto = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer reads side by side, and all else in turn."""
    if environ["REQUEST_METHOD"] == "GET":
        return list(moto(environ, start_response))
    with lock:
        return list(moto(environ, start_response))


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
