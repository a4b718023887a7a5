"""A cluster's requests to one host are divided among its workers as they come and go.

The scheduler is the one who knows how many workers there are, so a plugin of it tells each. What a worker then may ask for is
:class:`~rasteret_dask.model.RatePolicy`'s ``cluster_in_flight`` and ``per_second`` times its share.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.pickle import dumps
from distributed.worker import Worker

SETTLE = 0.2
"""Seconds that workers may take to come or go together before they are told."""


def take_share(workers: int) -> float:
    """Run by a worker: take this process's part of a cluster of so many workers; returns it."""
    here = sum(1 for w in list(Worker._instances) if w.status.name == "running")
    share = min(1.0, max(1, here) / max(1, workers))
    # The scheduler holds this function too, and needs no stores for it.
    importlib.import_module("rasteret_dask.storage.attempts").set_share(share)
    return share


class Governor(SchedulerPlugin):
    """Tells workers how many they are, whenever that changes."""

    name = "rasteret-dask-governor"
    idempotent = True

    def __init__(self) -> None:
        self._scheduler: Any = None
        self._pending: asyncio.Task[None] | None = None
        self._changed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Governor, ()

    async def start(self, scheduler: Any) -> None:
        """Begin with the workers that there are."""
        self._scheduler = scheduler
        self._soon()

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """One more."""
        self._scheduler = scheduler
        self._soon()

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        """One less."""
        self._soon()

    def _soon(self) -> None:
        # Also for a round that is under way: it may have asked everybody already.
        self._changed = True
        if self._pending is None or self._pending.done():
            self._pending = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        while self._changed:
            await asyncio.sleep(SETTLE)
            self._changed = False
            message = {
                "op": "run",
                "function": dumps(take_share),
                "args": dumps((len(self._scheduler.workers),)),
                "kwargs": dumps({}),
                "wait": True,
            }
            await self._scheduler.broadcast(msg=message, on_error="ignore")

    async def close(self) -> None:
        """Tell nobody any more."""
        if self._pending is not None:
            self._pending.cancel()
