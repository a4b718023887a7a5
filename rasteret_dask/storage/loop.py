"""One event loop per process, in a thread of its own, that lives as long as the process.

State: ``_owner`` maps a process id to its loop. It is made on first use and made anew in a forked child, because a thread
does not survive a fork. (One loop for each call to ``asyncio.run`` crashed 15 of 40 processes at exit with obstore.)

obstore's threads bring their results by ``call_soon_threadsafe``, which lets go of the interpreter to wake the loop. Whoever waits for the
result may then end the process before such a thread has come back, and it aborts: an exit code of -6 after work well done, in one of forty
processes on a loaded machine. So at exit the loop is stopped, and who is still on the way back is waited for.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_GRACE = 5.0
"""Seconds that the end of a process may wait for what is under way."""

_lock = threading.Lock()
_owner: dict[int, _Loop] = {}


class _Loop(asyncio.SelectorEventLoop):
    """Knows how many threads are about to hand something over."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.Thread(
            target=self.run_forever, name="rasteret-dask-io", daemon=True
        )
        self._visitors: set[object] = set()

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As the base class does it."""
        me = object()
        self._visitors.add(me)
        try:
            return super().call_soon_threadsafe(callback, *args, context=context)
        finally:
            self._visitors.discard(me)

    def finish(self) -> None:
        """Stop, and wait for those who are on their way back."""
        end = time.monotonic() + _GRACE
        ended = asyncio.run_coroutine_threadsafe(_cancel_all(), self)
        while time.monotonic() < end and not ended.done():
            time.sleep(0.001)
        self.call_soon_threadsafe(self.stop)
        self.thread.join(max(0.0, end - time.monotonic()))
        while self._visitors and time.monotonic() < end:
            time.sleep(0.001)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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


def _start() -> _Loop:
    loop = _Loop()
    loop.thread.start()
    atexit.register(_finish)
    return loop


def _finish() -> None:
    loop = _owner.pop(os.getpid(), None)  # a forked child ends without its parent's
    if loop is not None:
        loop.finish()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the process's loop and wait for its result.

    Must not be called from the loop's own thread, which would wait for itself.
    """
    future = asyncio.run_coroutine_threadsafe(coroutine, get_loop())
    try:
        return future.result()
    finally:
        future.cancel()  # where the wait was broken off; one that is done takes no notice


def _fresh_lock_in_child() -> None:
    # A fork may have happened while another thread held the lock; the child would wait for ever.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_fresh_lock_in_child)
