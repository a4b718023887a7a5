"""What a process's fetch budget has given out, as its event loop sees it."""

from __future__ import annotations

import time
from collections.abc import Callable

from rasteret_dask.model import StorageOptions
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.source import limiter


def owed(options: StorageOptions) -> int:
    """Bytes that are held now; whatever the loop was asked to do before has been done."""

    async def held() -> int:
        budget = limiter(options.rate).budget
        return budget.size - budget.free

    return run(held())


def until(true: Callable[[], bool]) -> bool:
    """Whether it becomes true; closing, and what servers send, take their time."""
    for _ in range(1000):
        if true():
            return True
        time.sleep(0.01)
    return False


def settles(options: StorageOptions) -> bool:
    """Whether all bytes come back."""
    return until(lambda: owed(options) == 0)
