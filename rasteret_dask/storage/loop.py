"""One event loop per process, in a thread of its own, that lives as long as the process.

State: ``_owner`` maps a process id to its loop. It is made on first use and made anew in a forked child, because a thread
does not survive a fork. (One loop for each call to ``asyncio.run`` crashed 15 of 40 processes at exit with obstore;
one loop that lives as long as the process, none.)
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_owner: dict[int, asyncio.AbstractEventLoop] = {}


def get_loop() -> asyncio.AbstractEventLoop:
    """Return this process's loop, running; start it if need be."""
    pid = os.getpid()
    loop = _owner.get(pid)
    if loop is not None:
        return loop
    with _lock:
        if pid not in _owner:
            _owner.clear()
            _owner[pid] = _start()
        return _owner[pid]


def _start() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rasteret-dask-io", daemon=True).start()
    return loop


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the process's loop and wait for its result.

    Must not be called from the loop's own thread, which would wait for itself.
    """
    future = asyncio.run_coroutine_threadsafe(coroutine, get_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _fresh_lock_in_child() -> None:
    # A fork may have happened while another thread held the lock; the child would wait for ever.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_fresh_lock_in_child)
