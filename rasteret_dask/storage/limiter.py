"""Requests in flight and per second to each host, and bytes in flight per process.

State: one :class:`Limiter` per process (and policy), owned by ``storage.attempts``. All methods run on the process's event loop, so no
locks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final

from rasteret_dask.model import RatePolicy

LARGE: Final = 512 * 1024
"""Bytes of a request of which few are enough to fill a line."""
_MANY_LARGE: Final = 64
"""Such requests to one host at once, or half of all if that is more: of more, each has a smaller share of the line, and all come in the
end, when nothing is left to be decoded meanwhile."""


class Budget:
    """Bytes that may be in flight, handed out first come first served.

    Parameters
    ----------
    size : int
        Bytes in all.
    spare : int
        How many of them may be lent to reads that nobody waits for yet. Bytes that are lent never keep those from coming that a running
        task needs to finish: it would wait for bytes that wait for it.
    """

    def __init__(self, size: int, spare: int = 0) -> None:
        self.size = size
        self.spare = spare
        self._free = size
        self._lent = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._hoping: deque[Callable[[], Callable[[], bool] | None]] = deque()

    @property
    def free(self) -> int:
        """Bytes that nobody holds."""
        return self._free

    async def reserve(self, size: int) -> None:
        """Wait until ``size`` bytes fit.

        A request larger than what there is passes when no other that is waited for is in flight, so that it cannot wait for ever.
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
        if self._waiting or not self._fits(size):
            return False
        self._free -= size
        return True

    def _fits(self, size: int) -> bool:
        return size <= self._free or self._free + self._lent == self.size

    def lend(self, size: int) -> bool:
        """Take ``size`` bytes for a read that nobody waits for yet, if there is room and nobody waits."""
        if self._waiting or size > self._free or size + self._lent > self.spare:
            return False
        self._free -= size
        self._lent += size
        return True

    def release(self, size: int, *, lent: bool = False) -> None:
        """Give bytes back and let the next ones in: those that are waited for, then those that are not."""
        size = min(size, self.size)
        self._free += size
        if lent:
            self._lent -= size
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
                continue
            if not self._fits(wanted):
                return
            self._waiting.popleft()
            self._free -= wanted
            turn.set_result(None)
        while self._hoping:
            more = self._hoping[0]()
            if more is not None and not more():
                return
            self._hoping.popleft()

    def hope(self, more: Callable[[], Callable[[], bool] | None]) -> None:
        """Be told of room to lend; who hoped first is told first.

        Parameters
        ----------
        more : weak reference to a method
            It takes what it can by :meth:`lend`, and says whether it has all that it hoped for.
        """
        self._hoping.append(more)


class Share:
    """How much of its limits a process makes use of: halved when a server refuses, recovering by one request for each round of requests.

    Additive increase and multiplicative decrease (Chiu and Jain 1989), as TCP does it: processes that do not know of each other come to
    equal shares of what a server can bear. Pure: time is an argument.

    Parameters
    ----------
    most : int
        Requests that may be in flight at best.
    hold : float
        Seconds in which further refusals count as the same event: they answer requests that were sent before the halving.
    """

    def __init__(self, most: int, hold: float = 1.0) -> None:
        self.most = most
        self.hold = hold
        self.value = float(most)
        self._halved = float("-inf")

    @property
    def limit(self) -> int:
        """Requests that may be in flight now, at least 1."""
        return max(1, int(self.value))

    @property
    def fraction(self) -> float:
        """The part of the limits that is made use of, in (0, 1]."""
        return self.value / self.most

    def refused(self, now: float, sent: float | None = None) -> None:
        """Take note of a 429 or 503.

        Parameters
        ----------
        now : float
            Seconds.
        sent : float, optional
            When the request was sent: the same event is then what answers requests from before the last halving, and not what comes within
            `hold`. While refusals count for nothing, what is served makes the share grow, at 50 ms a request by 20 in a second.
        """
        same = now - self._halved < self.hold if sent is None else sent <= self._halved
        if not same:
            self._halved = now
            self.value = max(1.0, self.value / 2.0)

    def served(self) -> None:
        """Take note of a request that succeeded."""
        if self.value < self.most:
            self.value = min(float(self.most), self.value + 1.0 / self.value)

    def resize(self, most: int) -> None:
        """Change the limit; what is made use of stays the same part of it."""
        self.value = max(1.0, self.value * most / self.most)
        self.most = most


class Gate:
    """What every request to one host passes: ``async with`` it.

    Parameters
    ----------
    most : int
        Requests under way at once.
    per_second : float, optional
        Requests that are let in per second.

    Attributes
    ----------
    large : asyncio.Semaphore
        What requests for more than `LARGE` bytes pass before it.
    """

    def __init__(self, most: int, per_second: float | None = None) -> None:
        self.large = asyncio.Semaphore(max(_MANY_LARGE, most // 2))
        self.share = Share(most)
        self.per_second = per_second
        self._limit = most
        self._active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._next = 0.0

    @property
    def wary(self) -> bool:
        """Whether the host has refused lately."""
        return self._limit < self.share.most

    async def __aenter__(self) -> None:
        if self._active < self._limit and not self._waiting:
            self._active += 1
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()
                raise
        if self.per_second is not None or self._next:
            try:
                await self._pace()
            except asyncio.CancelledError:
                self._leave()
                raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        while (now := loop.time()) < self._next and self.per_second is None:
            await asyncio.sleep(self._next - now)
        if self.per_second is None:
            self._next = 0.0
            return
        at = max(self._next, now)
        self._next = at + 1.0 / (self.per_second * self.share.fraction)
        if at > now:
            await asyncio.sleep(at - now)

    def _leave(self) -> None:
        self._active -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._active < self._limit:
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self._active += 1
                turn.set_result(None)

    def refused(self, now: float, wait: float = 0.0, sent: float | None = None) -> None:
        """Ask for half as much; with ``wait``, for nothing at all for so many seconds; ``sent`` as :meth:`Share.refused` has it."""
        self.share.refused(now, sent)
        self._limit = self.share.limit
        if wait > 0.0:
            self._next = max(self._next, now + wait)

    def served(self) -> None:
        """Recover a little, if there is need."""
        if self._limit < self.share.most:
            self.share.served()
            self._limit = self.share.limit
            self._admit()

    def resize(self, most: int, per_second: float | None) -> None:
        """Change the limits."""
        self.share.resize(most)
        self.per_second = per_second
        self._limit = self.share.limit
        self._admit()


class Limiter:
    """Gates that every request passes.

    Parameters
    ----------
    policy : RatePolicy
        Requests per host and bytes per process.
    share : float
        This process's part of what the whole cluster may ask for, in (0, 1].

    Attributes
    ----------
    budget : Budget
        The policy's bytes, half of which may be lent to reads that will be waited for later.
    """

    def __init__(self, policy: RatePolicy, share: float = 1.0) -> None:
        self.policy = policy
        self.budget = Budget(policy.budget, policy.budget // 2)
        self._limits = limits(policy, share)
        self._hosts: dict[str, Gate] = {}

    def host(self, name: str) -> Gate:
        """Return the gate of one host."""
        gate = self._hosts.get(name)
        if gate is None:
            gate = self._hosts[name] = Gate(*self._limits)
        return gate

    def set_share(self, share: float) -> None:
        """Change this process's part of what the whole cluster may ask for."""
        self._limits = limits(self.policy, share)
        for gate in self._hosts.values():
            gate.resize(*self._limits)


def limits(policy: RatePolicy, share: float) -> tuple[int, float | None]:
    """Return the requests in flight and per second that a process with this share of the cluster may ask of one host."""
    most = policy.in_flight
    if policy.cluster_in_flight is not None:
        most = max(1, min(most, int(policy.cluster_in_flight * share + 1e-9)))
    return most, None if policy.per_second is None else policy.per_second * share
