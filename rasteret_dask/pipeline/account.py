"""What a run cost: requests and bytes of every process that took part, and tasks.

Nothing is sent around while the work is under way: counters are cumulative in each process, so two
looks and a subtraction are enough. A worker that died took its counts along; the sums are then too
small, never too large.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from dask.callbacks import Callback
from distributed import Client

from rasteret_dask.storage.counters import Counters, snapshot

Process = tuple[str, int]


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


class Meter:
    """Requests and bytes since it was made, over this process and all workers.

    Parameters
    ----------
    client : distributed.Client or None
    """

    def __init__(self, client: Client | None) -> None:
        self._client = client
        self._before = self._all()

    def _all(self) -> Mapping[Process, Counters]:
        # By process, not by worker: threads of one process share their counters.
        looks = [_look()]
        if self._client is not None:
            looks += self._client.run(_look).values()
        return dict(looks)

    def read(self) -> Counters:
        """Sum over all processes; workers that joined later count from their birth."""
        total = Counters()
        for process, counters in self._all().items():
            total = total + (counters - self._before.get(process, Counters()))
        return total


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
