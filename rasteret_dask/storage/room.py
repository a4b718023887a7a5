"""Memory that large answers are received into: pages of two megabytes, used again.

Memory of its own for each answer, a megabyte or so, takes the system as long to lay out in pages of 4 KiB as it takes to receive
it: 0.5 ms a megabyte, for 0.1 in pages of 2 MiB (Linux, x86). So answers are laid one behind the other into
slabs, and a slab that nobody looks at any more takes the next ones.

State, of each process: ``_free`` holds the slabs that nobody looks at, ``_looked_at`` one entry for each of the others, and ``_current``
the one that is being filled. It belongs to the event loop's thread, as connections do; slabs come back from any thread. When no answer has
come for a while, :func:`watch` lets go of them.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import sys
import weakref
from collections import deque
from contextlib import suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt

PAGE: Final = 2 << 20
"""Bytes of a huge page."""
SLAB: Final = 2 * PAGE
"""Bytes of a slab. One answer that is still looked at keeps a slab, and so they are not larger."""
LEAST: Final = 128 * 1024
"""Bytes from which answers are laid into slabs; for fewer, memory comes from C's heap, which has had it before."""
MOST: Final = 32
"""Slabs that are looked at, at most. The fetch budget fills 25; more are there when small parts keep them, and then heaps waste less."""
_KEPT: Final = 8
"""Slabs that are kept for the next answers, at most."""
_LINE: Final = 64
"""Bytes to which each answer is aligned."""
_IDLE: Final = 50.0
"""Seconds without an answer after which slabs are let go of."""

_free: deque[mmap.mmap] = deque(maxlen=_KEPT)
_looked_at: deque[None] = deque()


class _Current:
    """The slab that is being filled."""

    def __init__(self) -> None:
        self.asked = 0
        self.watched = False
        self.drop()

    def drop(self) -> None:
        """Leave it to those who look at it."""
        self.memory: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        self.used = 0


_current = _Current()


def room(size: int) -> memoryview:
    """Return memory of its own for so many bytes, whatever they hold now; it is free again when nobody looks at it any more.

    Parameters
    ----------
    size : int

    Returns
    -------
    memoryview
        Of bytes, contiguous and writable.
    """
    if not LEAST <= size <= SLAB or sys.platform != "linux":
        return np.empty(size, np.uint8).data
    if _current.used + size > len(_current.memory):
        _current.drop()  # first, for it may be free with that
        if len(_looked_at) >= MOST:
            return np.empty(size, np.uint8).data
        _current.memory = _new()
    _current.asked += 1
    start = _current.used
    _current.used += -(-size // _LINE) * _LINE
    return _current.memory[start : start + size].data


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Let go of slabs once no answer has asked for room for a while; whoever asks says so, by the loop's thread."""
    if not _current.watched:
        _current.watched = True
        loop.call_later(_IDLE, _look, loop, _current.asked)


def clear() -> None:
    """Let go of the memory that nobody looks at."""
    _current.drop()
    _free.clear()


def _look(loop: asyncio.AbstractEventLoop, asked: int) -> None:
    if _current.asked == asked:
        _current.drop()
    if _current.asked != asked or _looked_at:
        loop.call_later(_IDLE, _look, loop, _current.asked)
        return
    _current.watched = False
    clear()


def _new() -> npt.NDArray[np.uint8]:
    try:
        memory = _free.pop()
    except IndexError:
        memory = _mapped()
    whole: npt.NDArray[np.uint8] = np.frombuffer(memory, np.uint8)
    _looked_at.append(None)
    # All that is cut from it has it for its base, so this is called when the last of them is gone, by whichever thread.
    weakref.finalize(whole, _back, memory).atexit = False
    begin = -whole.ctypes.data % PAGE
    return whole[begin : begin + SLAB]


def _back(memory: mmap.mmap) -> None:
    _looked_at.pop()
    _free.append(memory)


def _mapped() -> Any:
    memory = mmap.mmap(-1, SLAB + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A kernel without huge pages refuses, and gives small ones, which are used again all the same.
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _begin_anew() -> None:
    """In a forked child: no loop watches, and what is written to the parent's pages would be copied first."""
    clear()
    _current.watched = False


os.register_at_fork(after_in_child=_begin_anew)
