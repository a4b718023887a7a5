"""Bands of one chunk are fetched together, though Dask runs one read after the other.

``(B08 - B04) / (B08 + B04)`` is fused by Dask into one task, whose two reads would wait for the network one after the other. The first
read therefore also starts the fetches of those other bands of the same chunk that somebody in this process is about to read: exactly those
whose plan is alive here, because a plan lives only in a task that is to be run. Nothing is guessed at, so nothing is fetched in vain.

State: ``_live`` holds, weakly, the reads of this process that may still run; it is owned by this module and emptied by the garbage
collector as tasks end. A forked child keeps what it inherits, which is harmless: it is never started there twice.
"""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures import Future
from typing import Any, Protocol

from rasteret_dask.errors import RasteretError
from rasteret_dask.plan.chunks import ReadPlan


class Block(Protocol):
    """A read of one band of one chunk (:class:`~rasteret_dask.read.graph.BlockRead`)."""

    plan: ReadPlan
    started: bool
    reading: Any


LIGHT = 16 * 1024 * 1024
"""Bytes up to which a read starts its siblings. A larger one keeps the line busy by itself, and bytes that lie waiting for a task that runs
much later only take room from those that are needed now."""

Key = tuple[str, tuple[int, int, int], str]

_live: weakref.WeakValueDictionary[Key, Block] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def register(block: Block) -> None:
    """Make a read known to its siblings."""
    kin = block.plan.kin
    if kin is not None:
        with _lock:
            _live[(kin[0], kin[1], block.plan.output.band)] = block


def read(block: Block, index: tuple[Any, ...], start: Any) -> Any:
    """Read a window of a chunk, and start its siblings' fetches.

    Parameters
    ----------
    block : Block
    index : tuple
        As NumPy takes it.
    start : callable
        ``(plan, index, ahead=…)`` to an object with ``finish()`` and ``close()``: :class:`~rasteret_dask.read.tasks.Reading`.
    """
    with _lock:
        block.started = True
        ahead, block.reading = block.reading, None
    reading = _taken(ahead, index)
    if reading is None:
        reading = start(block.plan, index)
    for other, promise in _siblings(block, index):
        begun = None
        try:
            begun = start(other.plan, index, ahead=True)
        except (IndexError, RasteretError):
            pass  # It will say so itself when it is its turn.
        finally:
            promise.set_result(begun)
    return reading.finish()


def _taken(ahead: tuple[str, Future[Any]] | None, index: tuple[Any, ...]) -> Any:
    """Return what a sibling has started for this read, if it is of use."""
    if ahead is None:
        return None
    wanted, promise = ahead
    # The sibling may be at it this very moment, in another thread: planning takes milliseconds.
    reading = promise.result()
    if reading is not None and wanted != repr(index):
        reading.close()
        return None
    return reading


def _siblings(block: Block, index: tuple[Any, ...]) -> list[tuple[Block, Future[Any]]]:
    """Claim the other bands of a chunk that somebody is about to read, so that nobody else starts them."""
    kin = block.plan.kin
    if kin is None or _bytes(block.plan) > LIGHT:
        return []
    found = []
    with _lock:
        for band in kin[2]:
            other = _live.get((kin[0], kin[1], band))
            if other is not None and other is not block and not other.started:
                promise: Future[Any] = Future()
                other.started = True
                other.reading = (repr(index), promise)
                found.append((other, promise))
    return found


def _bytes(plan: ReadPlan) -> int:
    """Return the bytes of all tiles that a chunk may need of one band."""
    return sum(int(source.counts.sum()) for source in plan.sources)


def _fresh_lock_in_child() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_fresh_lock_in_child)
