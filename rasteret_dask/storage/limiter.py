"""Requests in flight per host, and bytes in flight per process.

State: one :class:`Limiter` per process (and policy), owned by ``storage.source``. All methods run on the process's event loop, so no locks.
"""

from __future__ import annotations

import asyncio
from collections import deque

from rasteret_dask.model import RatePolicy


class Limiter:
    """Gate that every request passes.

    Parameters
    ----------
    policy : RatePolicy
        Requests per host and bytes per process.
    """

    def __init__(self, policy: RatePolicy) -> None:
        self.policy = policy
        self._hosts: dict[str, asyncio.Semaphore] = {}
        self._free = policy.budget
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def host(self, name: str) -> asyncio.Semaphore:
        """Return the gate of one host."""
        gate = self._hosts.get(name)
        if gate is None:
            gate = self._hosts[name] = asyncio.Semaphore(self.policy.in_flight)
        return gate

    async def reserve(self, size: int) -> None:
        """Wait until ``size`` bytes fit the budget, first come first served.

        A request larger than the whole budget passes when nothing else is in flight, so that it cannot wait for ever.
        """
        size = min(size, self.policy.budget)
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(size)
            raise

    def try_reserve(self, size: int) -> bool:
        """Take ``size`` bytes if they are free now and nobody waits."""
        if self._waiting or size > self._free:
            return False
        self._free -= size
        return True

    def release(self, size: int) -> None:
        """Give bytes back and let the next ones in."""
        self._free += min(size, self.policy.budget)
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
                continue
            if wanted > self._free:
                return
            self._waiting.popleft()
            self._free -= wanted
            turn.set_result(None)
