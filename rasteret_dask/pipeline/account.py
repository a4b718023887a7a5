"""What a run cost: requests and bytes of every process that took part, and tasks.

Nothing is sent around while the work is under way: counters are cumulative in each process, so two
looks and a subtraction are enough. A worker that died took its counts along; the sums are then too
small, never too large.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from dask.callbacks import Callback
from distributed import Client

from rasteret_dask.storage.counters import Counters, snapshot

log = logging.getLogger(__name__)

Process = tuple[str, int]
Told = Mapping[str, "tuple[Process, Counters] | Exception"]
"""What each worker says of itself, or why it says nothing."""

PATIENCE: Final = 30.0
"""Seconds in which workers must have said what they have asked for; one that decodes is late, one that hangs never does."""


@dataclass(frozen=True, slots=True)
class RunAccount:
    """What a run did.

    Parameters
    ----------
    pipeline : str
        Its name.
    items : int
        Items of the collection after its subset.
    headers : int
        File headers read by the build; 0 when the collection was there already.
    requests, bytes, retries : int
        Of rasters, over all processes, the build included.
    tasks : int
        Dask tasks that finished.
    seconds : float
        Wall time.
    outputs : tuple of str
        URLs written.
    regions, computed : int
        Regions of Zarr stores, and those of them that were computed now.
    record : str, optional
        URL of the run's record.
    reused : bool
        Everything was there already, and nothing was computed.
    failures : int
        Tiles that could not be had and are nodata now, each with its row in the ledger.
    """

    pipeline: str
    items: int
    headers: int
    requests: int
    bytes: int
    retries: int
    tasks: int
    seconds: float
    outputs: tuple[str, ...]
    regions: int = 0
    computed: int = 0
    record: str | None = None
    reused: bool = False
    failures: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        return asdict(self)


class Progress(Protocol):
    """Who wants to hear how a run gets on; called from one thread at a time."""

    def stage(self, text: str) -> None:
        """A new part of the work begins."""

    def update(self, done: int, total: int) -> None:
        """Tasks of this stage that are finished, and that are known of; `total` may grow."""


class Silence:
    """A listener that does nothing."""

    def stage(self, text: str) -> None:
        """Ignore it."""

    def update(self, done: int, total: int) -> None:
        """Ignore it."""


# --- requests and bytes --------------------------------------------------------------------------
def _look() -> tuple[Process, Counters]:
    return (socket.gethostname(), os.getpid()), snapshot()


async def _ask(client: Client) -> Told:
    told: Told = await asyncio.wait_for(client.run(_look, on_error="return"), PATIENCE)
    return told


class Meter:
    """Requests and bytes since it was made, over this process and all workers.

    A worker that does not answer ends no run for the sake of a number: what it has done is left out.

    Parameters
    ----------
    client : distributed.Client or None
    """

    def __init__(self, client: Client | None) -> None:
        self._client = client
        told = self._told()
        # What these have done before is not known, nor will it be what they have done since. None: nobody's is.
        self._silent = None if told is None else told.keys() - _answers(told).keys()
        self._before = _by_process(told or {})

    def _told(self) -> Told | None:
        """None when nobody can be asked."""
        if self._client is None:
            return {}
        try:
            told: Told = self._client.sync(_ask, self._client)
        except OSError as problem:  # a time-out, or a lost scheduler: the work itself will say so
            log.warning("requests of the workers are not counted: %s", type(problem).__name__)
            return None
        for worker in sorted(told.keys() - _answers(told).keys()):
            log.warning("requests of the worker %s are not counted: it does not answer", worker)
        return told

    def read(self) -> Counters:
        """Sum over all processes; workers that joined later count from their birth."""
        told = None if self._silent is None else self._told()
        silent = self._silent or ()
        total = Counters()
        for process, counters in _by_process(told or {}, silent).items():
            total = total + (counters - self._before.get(process, Counters()))
        return total


def _answers(told: Told) -> dict[str, tuple[Process, Counters]]:
    return {worker: one for worker, one in told.items() if not isinstance(one, Exception)}


def _by_process(told: Told, without: Collection[str] = ()) -> dict[Process, Counters]:
    # By process, not by worker: threads of one process share their counters.
    answers = _answers(told)
    return dict([_look(), *(one for worker, one in answers.items() if worker not in without)])


def current_client() -> Client | None:
    """The active client, if there is one."""
    try:
        return Client.current()
    except ValueError:
        return None


# --- tasks ---------------------------------------------------------------------------------------
def _scheduler_counts(dask_scheduler: Any = None) -> tuple[int, int]:
    """Tasks that ever reached memory, and that ever waited: cumulative, so workers may die
    between."""
    prefixes = dask_scheduler.task_prefixes.values()
    done = sum(prefix.state_counts["memory"] for prefix in prefixes)
    return done, sum(prefix.state_counts["waiting"] for prefix in prefixes)


class _ThreadTasks(Callback):
    """Counts tasks of Dask's own schedulers in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0
        self.total = 0

    def _start_state(self, dsk: Any, state: Mapping[str, Any]) -> None:
        self.total += len(state["waiting"]) + len(state["ready"])

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        self.done += 1  # the scheduler calls this from one thread

    def counts(self) -> tuple[int, int]:
        """Finished, known."""
        return self.done, self.total


@contextmanager
def watch(client: Client | None, progress: Progress, interval: float = 0.3) -> Iterator[TaskCount]:
    """Count tasks while the body runs, and tell `progress` of them.

    Yields
    ------
    TaskCount
    """
    with _counter(client) as counts:
        first = counts()
        stop = threading.Event()

        def poll() -> None:
            while not stop.wait(interval):
                try:
                    done, total = counts()
                except OSError:  # the scheduler is gone; the work itself will say so
                    return
                progress.update(done - first[0], total - first[1])

        thread = threading.Thread(target=poll, name="rasteret-dask-progress", daemon=True)
        thread.start()
        count = TaskCount()
        try:
            yield count
        finally:
            stop.set()
            # Whoever asks a lost scheduler waits for half a minute; the error need not.
            thread.join(timeout=2 * interval if sys.exc_info()[0] is not None else None)
        done, total = counts()
        count.tasks = done - first[0]
        progress.update(done - first[0], max(done - first[0], total - first[1]))


@dataclass(slots=True)
class TaskCount:
    """Tasks that finished in the body of `watch`; set when it ends well."""

    tasks: int = 0


@contextmanager
def _counter(client: Client | None) -> Iterator[Callable[[], tuple[int, int]]]:
    if client is None:
        with _ThreadTasks() as tasks:
            yield tasks.counts
    else:
        yield lambda: client.run_on_scheduler(_scheduler_counts)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def read(self) -> float:
        """Seconds."""
        return time.perf_counter() - self._start
