"""Memory that answers are received into, used again as soon as nobody looks at it any more.

Memory that is new to a process is zeroed by the kernel page by page before the first byte can be received into it, which takes longer
than receiving. So what one range came in serves the next.

State: ``_pools`` holds the unused memory of each process: together with what is in use no more than has been in use at once, and none of
it once `IDLE` seconds have passed without a range. It belongs to the event loop's thread; others only append to a queue as they let go of
memory.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import Any, Final

import numpy as np
import numpy.typing as npt

LEAST: Final = 128 * 1024
"""Bytes from which memory is kept: what is smaller comes from what the process has at hand anyway."""
LARGEST: Final = 8 * 1024 * 1024
"""Bytes up to which memory is kept; larger tiles are few."""
IDLE: Final = 1.0
"""Seconds without a range after which nothing is kept."""

Block = npt.NDArray[np.uint8]


class _Lent(np.ndarray[Any, np.dtype[np.uint8]]):
    """A block in use: when the last view of it goes, the block under it returns to its pool."""

    home: deque[Block] | None = None

    def __del__(self) -> None:
        # A view of this one has no home of its own.
        home, block = self.home, self.base
        if home is not None and block is not None:
            home.append(block)


class Pool:
    """Blocks of memory by size; for one thread, whichever thread lets go of them.

    Attributes
    ----------
    total : int
        Bytes of all blocks, in use or not.
    lent : int
        How many blocks have been asked for.
    """

    def __init__(self) -> None:
        self.total = 0
        self.lent = 0
        self._free: dict[int, list[Block]] = {}
        self._returned: deque[Block] = deque()

    def lend(self, size: int) -> memoryview:
        """Return `size` bytes of memory, whatever is in them; it comes back by itself when nobody holds a view of it."""
        self.lent += 1
        if size > LARGEST:
            return np.empty(size, np.uint8).data
        self._collect()
        room = rounded(size)
        blocks = self._free.get(room)
        if blocks:
            block = blocks.pop()
        else:
            self._let_go(room)
            block = np.empty(room, np.uint8)
            self.total += room
        lent = block.view(_Lent)
        lent.home = self._returned
        return lent.data[:size]

    def clear(self) -> None:
        """Let go of all that is not in use."""
        self._collect()
        self._let_go(self.total)

    def _collect(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            self._free.setdefault(len(block), []).append(block)

    def _let_go(self, size: int) -> None:
        """Let go of `size` unused bytes or a little more, the largest blocks first; of all there are when there are not so many."""
        left = self.total - size
        for room in sorted(self._free, reverse=True):
            blocks = self._free[room]
            while blocks and self.total > left:
                blocks.pop()
                self.total -= room


def rounded(size: int) -> int:
    """Return the bytes of the block that serves for `size` of them: one of eight sizes between a power of two and the next."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step


_pools: dict[int, Pool] = {}


def pool() -> Pool:
    """Return this process's blocks, which are let go of when no range has come for a while; on the event loop alone."""
    found = _pools.get(os.getpid())
    if found is None:
        found = _pools[os.getpid()] = Pool()
    if found.total == 0:
        asyncio.get_running_loop().call_later(IDLE, _look, found, found.lent)
    return found


def _look(found: Pool, lent: int) -> None:
    """Let go of everything if nothing was asked for since."""
    if found.lent == lent:
        found.clear()
    if found.total:
        asyncio.get_running_loop().call_later(IDLE, _look, found, found.lent)
