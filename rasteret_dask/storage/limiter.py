"""Requests in flight per host, and bytes in flight per process.

State: one :class:`Limiter` per process (and policy), owned by ``storage.source``. All methods run on the process's event loop, so no locks.
"""

from __future__ import annotations

import asyncio
from collections import deque

from rasteret_dask.model import RatePolicy


class Budget:
    """Bytes that may be in flight, handed out first come first served.

    Parameters
    ----------
    size : int
        Bytes in all.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def free(self) -> int:
        """Bytes that nobody holds."""
        return self._free

    async def reserve(self, size: int) -> None:
        """Wait until ``size`` bytes fit.

        A request larger than the whole budget passes when nothing else is in flight, so that it cannot wait for ever.
        """
        size = min(size, self.size)
        if self.try_reserve(size):
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
        size = min(size, self.size)
        if self._waiting or size > self._free:
            return False
        self._free -= size
        return True

    def release(self, size: int) -> None:
        """Give bytes back and let the next ones in."""
        self._free += min(size, self.size)
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


class Limiter:
    """Gates that every request passes.

    Parameters
    ----------
    policy : RatePolicy
        Requests per host and bytes per process.

    Attributes
    ----------
    budget : Budget
        For reads that somebody waits for.
    ahead : Budget
        For reads that will be waited for later. It is a budget of its own: bytes that lie waiting must never keep those from coming
        that a running task needs to finish.
    """

    def __init__(self, policy: RatePolicy) -> None:
        self.policy = policy
        self.budget = Budget(policy.budget)
        self.ahead = Budget(policy.budget)
        self._hosts: dict[str, asyncio.Semaphore] = {}

    def host(self, name: str) -> asyncio.Semaphore:
        """Return the gate of one host."""
        gate = self._hosts.get(name)
        if gate is None:
            gate = self._hosts[name] = asyncio.Semaphore(self.policy.in_flight)
        return gate
