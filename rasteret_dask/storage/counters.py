"""How much this process has asked for: the numbers behind every report of requests and bytes.

State: ``_counts`` belongs to this module and is written only under its lock.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counters:
    """Requests sent, bytes received and requests that were repeated, since the process began."""

    requests: int = 0
    bytes: int = 0
    retries: int = 0

    def __sub__(self, other: Counters) -> Counters:
        return Counters(
            self.requests - other.requests, self.bytes - other.bytes, self.retries - other.retries
        )

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.requests + other.requests, self.bytes + other.bytes, self.retries + other.retries
        )


_lock = threading.Lock()


def _fresh_lock_in_child() -> None:
    # A fork may have happened while another thread counted; the child would wait for ever.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_fresh_lock_in_child)
_counts = [0, 0, 0]


def add(*, requests: int = 0, size: int = 0, retries: int = 0) -> None:
    """Add to the process's counts."""
    with _lock:
        _counts[0] += requests
        _counts[1] += size
        _counts[2] += retries


def snapshot() -> Counters:
    """Return the counts so far."""
    with _lock:
        return Counters(*_counts)
