"""Reads that come next are fetched for before it is their turn.

``(B08 - B04) / (B08 + B04)`` is fused by Dask into one task, whose two reads would wait for the network one after the other; and a thread
that has done with a chunk would wait for the first byte of the next. A read therefore also starts the fetches of those that follow, as
:mod:`~rasteret_dask.read.upcoming` knows them: first the others of its own task, then those of the tasks that are taken up next. Nothing is
fetched in vain, and no more than half of the fetch budget is lent to it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any

from rasteret_dask.errors import RasteretError
from rasteret_dask.read import upcoming
from rasteret_dask.read.upcoming import Block, Next, Run, exact
from rasteret_dask.read.whole import prepare, room

_lock = threading.Lock()


@dataclass(slots=True, eq=False)
class Claim:
    """A fetch ahead, which no other read may start as well.

    Parameters
    ----------
    following : Next
        What it is for.
    promise : Future
        Of the reading, or of None if it could not be started.
    run : Run
        The graph that it is for.
    size : int
        Bytes that it fetches.
    placed : bool
        It will lie in that graph's result.
    """

    following: Next
    promise: Future[Any]
    run: Run
    size: int = 0
    placed: bool = False

    @property
    def open(self) -> bool:
        """Whether its turn has yet to come."""
        return self.following.block.claims.get(self.following.key) is self

    def take(self) -> Any:
        """Return the reading, when it has been started, and forget it: its arrays must not outlive the task that it is for."""
        reading = self.promise.result()
        self.promise = Future()
        return reading


def read(block: Block, index: tuple[Any, ...], start: Any) -> Any:
    """Read a window of a chunk, and start the fetches of what comes next.

    Parameters
    ----------
    block : Block
    index : tuple
        As NumPy takes it.
    start : callable
        ``(plan, index, ahead=…, out=…)`` to an object with ``size``, ``begin()``, ``finish()`` and ``close()``:
        :class:`~rasteret_dask.read.tasks.Reading`.
    """
    key = exact(index)
    found = upcoming.at_work(block)
    with _lock:
        block.seen |= {(run.number, key) for run, _ in found} or {(0, key)}
        claim = block.claims.pop(key, None)
    # Whoever has claimed it may be at it this very moment, in another thread: planning takes milliseconds.
    reading = None if claim is None else claim.take()
    # Of several graphs that read it at this moment, nobody knows whose thread this is.
    run, task = found[0] if len(found) == 1 else (None, None)
    if reading is not None and claim is not None and claim.placed and claim.run is not run:
        # It would be written into the result of another graph, which may be at it, or have handed it out.
        reading.close()
        reading = None
    if reading is None:
        out = None if run is None else _room(run, task, block, key)
        reading = start(block.plan, index, out=out)
    else:
        reading.begin()
    try:
        for following in _following(block):
            _begin(following, start)
        return reading.finish()
    except BaseException:
        reading.close()
        upcoming.end_own()
        raise


_WHOLE = exact((slice(None),) * 3)


def _room(run: Run, task: Any, block: Block, key: tuple[Any, ...]) -> Any:
    """Return where a chunk may be read to, if it is wanted whole."""
    return room(run, task, block.plan) if key == _WHOLE else None


def _begin(claim: Claim, start: Any) -> None:
    begun = None
    try:
        coming = claim.following
        out = _room(claim.run, coming.task, coming.block, coming.key)
        claim.placed = out is not None
        begun = start(coming.block.plan, coming.index, ahead=True, out=out)
        claim.size = begun.size
    except (IndexError, MemoryError, RasteretError):
        pass  # It will say so itself when it is its turn.
    finally:
        try:
            claim.promise.set_result(begun)
        except InvalidStateError:  # given up meanwhile
            if begun is not None:
                begun.close()


def _following(block: Block) -> Iterator[Claim]:
    """Claim what comes next, one after the other, as long as there is room."""
    found = upcoming.find(block)
    if found is None:
        return
    run, own = found
    most = block.plan.storage.rate.budget // 2
    for following in run.reads(own):
        claim = _claim(following, run, lambda task: task == own, most)
        if claim is not None:
            yield claim
    at_work = set(run.running())
    for task in run.ready():
        for following in run.reads(task):
            if _is_free(following, run):
                claim = _claim(following, run, lambda task: task not in at_work, most)
                if claim is None:
                    return
                yield claim


def _is_free(following: Next, run: Run) -> bool:
    """Whether a read has not begun, and nobody has claimed it."""
    block, key = following.block, following.key
    return (run.number, key) not in block.seen and key not in block.claims


def _claim(following: Next, run: Run, beside: Callable[[Any], bool], most: int) -> Claim | None:
    """Claim a read, if it is free and less than `most` bytes are fetched ahead for the tasks `beside` it."""
    with _lock:
        run.claims = [claim for claim in run.claims if claim.open]
        waiting = [claim.size for claim in run.claims if beside(claim.following.task)]
        full = sum(waiting) >= most or len(waiting) >= upcoming.FAR
        if run.over or full or not _is_free(following, run):
            return None
        claim = following.block.claims[following.key] = Claim(following, Future(), run)
        run.claims.append(claim)
    return claim


def _give_up(run: Run) -> None:
    """Close what nobody has come for, because something has failed; a thread that is at work still claims nothing more."""
    with _lock:
        run.over = True
        left = [claim for claim in run.claims if claim.open]
        for claim in left:
            del claim.following.block.claims[claim.following.key]
    for claim in left:
        # Whoever is about to begin it closes it.
        reading = None if claim.promise.cancel() else claim.promise.result()
        if reading is not None:
            reading.close()


def _fresh_lock_in_child() -> None:
    global _lock
    _lock = threading.Lock()


upcoming.on_start(prepare)
upcoming.on_end(_give_up)
os.register_at_fork(after_in_child=_fresh_lock_in_child)
