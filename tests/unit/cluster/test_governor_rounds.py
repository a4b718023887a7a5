"""Who is told how many workers there are, while they come and go; without a cluster."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from rasteret_dask.cluster import governor
from rasteret_dask.cluster.governor import Governor


class Scheduler:
    """Notes whom it tells what; while it first does so, workers go and come."""

    def __init__(self, plugin: Governor, gone: str, new: str) -> None:
        self.plugin, self.gone, self.new = plugin, gone, new
        self.workers = {"a": None, "b": None}
        self.told: list[tuple[list[str], int]] = []

    async def broadcast(self, msg: dict[str, Any], on_error: str) -> None:
        assert on_error == "ignore"
        self.told.append((sorted(self.workers), *pickle.loads(msg["args"])))
        if len(self.told) == 1:
            if self.gone:
                del self.workers[self.gone]
                self.plugin.remove_worker(self, self.gone)
            if self.new:
                self.workers[self.new] = None
                self.plugin.add_worker(self, self.new)
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("gone", "new", "then"),
    [
        ("", "", []),
        ("b", "c", [(["a", "c"], 2)]),  # as many as before, and one of them knows nothing
        ("b", "", [(["a"], 1)]),
        ("", "c", [(["a", "b", "c"], 3)]),
    ],
)
def test_whoever_comes_while_the_others_are_told(
    monkeypatch: pytest.MonkeyPatch, gone: str, new: str, then: list[tuple[list[str], int]]
) -> None:
    monkeypatch.setattr(governor, "SETTLE", 0.0)

    async def tell() -> list[tuple[list[str], int]]:
        plugin = Governor()
        scheduler = Scheduler(plugin, gone, new)
        await plugin.start(scheduler)
        assert plugin._pending is not None
        await plugin._pending
        return scheduler.told

    assert asyncio.run(tell()) == [(["a", "b"], 2), *then]
