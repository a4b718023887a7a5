"""Threads that decode: never more at once than the process has cores.

State: ``_crews`` maps a process id to its crew; a forked child makes its own.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

_lock = threading.Lock()
_crews: dict[int, Crew] = {}


class Crew:
    """Tokens for decoding, and helper threads for a task that has more arrivals than it can decode alone.

    Parameters
    ----------
    size : int
        Tiles that may be decoded at once in this process.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._tokens = threading.BoundedSemaphore(size)
        self._counting = threading.Lock()
        self._waiting = 0
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="rasteret-dask-decode")

    def here(self, work: Callable[[], None]) -> None:
        """Do the work in the calling thread, once there is a token."""
        if not self._tokens.acquire(blocking=False):
            self._wait()
        try:
            work()
        finally:
            self._tokens.release()

    def _wait(self) -> None:
        with self._counting:
            self._waiting += 1
        try:
            self._tokens.acquire()
        finally:
            with self._counting:
                self._waiting -= 1

    @property
    def crowded(self) -> bool:
        """Whether a task waits for a token; helpers that have one give it back after the tile that they are at."""
        return self._waiting > 0

    def elsewhere(self, work: Callable[[], None]) -> Future[None] | None:
        """Give the work to a helper if a token is free now; otherwise return None."""
        if not self._tokens.acquire(blocking=False):
            return None
        future = self._pool.submit(work)
        # Also called when the work is cancelled before a thread has taken it up; the token would be lost otherwise.
        future.add_done_callback(lambda _: self._tokens.release())
        return future


def crew() -> Crew:
    """Return this process's crew."""
    pid = os.getpid()
    found = _crews.get(pid)
    if found is None:
        with _lock:
            found = _crews.get(pid)
            if found is None:
                _crews.clear()
                found = _crews[pid] = Crew(_cores())
    return found


def _cores() -> int:
    """Return the cores this process may use: a Dask worker process has as many as it has threads."""
    available = len(os.sched_getaffinity(0))
    module = sys.modules.get("distributed.worker")
    if module is None:
        return available
    threads = sum(w.state.nthreads for w in list(module.Worker._instances))
    return max(1, min(available, threads)) if threads else available


def _fresh_lock_in_child() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_fresh_lock_in_child)
