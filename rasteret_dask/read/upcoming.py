"""What this process reads next, by the word of Dask's own schedulers.

When Dask works through a graph in this process (threads, or the calling thread alone), it tells whoever has asked
(:class:`dask.callbacks.Callback`) and hands over the graph and its state: which tasks are at work, and which are ready, in the order in
which they will be taken. So reads that come next are known with their very index, and nothing is guessed at. A worker of a cluster knows
the task that it is at, that task's other reads, and those of the tasks that it has been given, though they may yet be taken away from it.

State: ``_runs`` holds the graphs that are being worked through in this process, from Dask's start to its end, and ``_own`` the task that
each thread of a worker is at; this module owns them. A forked child has none.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from dask._task_spec import Alias, DataNode, Task, TaskRef, _execute_subgraph
from dask.array.core import getter
from dask.callbacks import Callback

from rasteret_dask.plan.chunks import ReadPlan

FAR = 64
"""Tasks that are looked at: as many as one host may be asked at once by default, if each has a single tile."""


NEAR = 2
"""Tasks of a worker that are looked at, for each of its threads."""


class Block(Protocol):
    """A read of one band of one chunk (:class:`~rasteret_dask.read.graph.BlockRead`).

    `seen` holds what has been read of it, by each run's number: Dask keeps a layer's tasks, and computes with the same ones again.
    """

    plan: ReadPlan
    seen: set[tuple[int, Any]]
    claims: dict[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Next:
    """A read that will come.

    Parameters
    ----------
    task : hashable
        Key of the task that reads.
    block : Block
    index : tuple
        As NumPy takes it.
    key : tuple
        The same as something that can be compared; see :func:`exact`.
    """

    task: Any
    block: Block
    index: tuple[Any, ...]
    key: tuple[Any, ...]


class Run:
    """A graph that Dask works through, or one task of a worker.

    Parameters
    ----------
    graph : mapping
        Tasks by key.
    state : mapping
        Dask's own account, which its thread changes as tasks begin and end.
    number : int
        Of a graph, no other has it; 0 of a worker's tasks, whose blocks are their own.

    Attributes
    ----------
    claims : list
        For :mod:`~rasteret_dask.read.ahead`: what is fetched ahead.
    over : bool
        Nothing more may be fetched ahead.
    results : dict
        For :mod:`~rasteret_dask.read.whole`: arrays that chunks are decoded into, by the key of the task that returns them.
    taken : dict
        For the same: who has been given the place of a chunk in them, by the key of the task that reads it.
    """

    def __init__(self, graph: Mapping[Any, Any], state: Mapping[str, Any], number: int = 0) -> None:
        self.graph = graph
        self.number = number
        self.claims: list[Any] = []
        self.over = False
        self.results: dict[Any, npt.NDArray[Any]] = {}
        self.taken: dict[Any, object] = {}
        self._state = state
        self._known: dict[Any, tuple[Next, ...]] = {}

    def running(self) -> list[Any]:
        """Keys of the tasks that are at work."""
        # A copy in one operation: Dask's thread goes on.
        return list(self._state["running"])

    def ready(self) -> list[Any]:
        """Keys of the tasks that come next, the first of them first."""
        last: list[Any] = self._state["ready"][-FAR:]
        return last[::-1]

    def users(self, task: Any) -> Collection[Any]:
        """Keys of the tasks that depend on a task; none are known of a worker's."""
        found: Collection[Any] = self._state.get("dependents", {}).get(task, ())
        return found

    def reads(self, task: Any) -> tuple[Next, ...]:
        """What a task reads."""
        found = self._known.get(task)
        if found is None:
            node = self.graph.get(task)
            reads = [Next(task, block, index, exact(index)) for block, index in reads_of(node)]
            found = self._known[task] = tuple(reads)
        return found


_runs: list[Run] = []
_numbers = itertools.count(1)
_own = threading.local()
_on_start: list[Callable[[Any], None]] = []
_on_end: list[Callable[[Run], None]] = []


def watch() -> None:
    """Ask Dask to tell of the graphs that it works through in this process; asking again changes nothing."""
    Callback.active.add(_CALLBACK)


def on_start(what: Callable[[Any], None]) -> None:
    """Have something done with each graph before Dask begins it."""
    _on_start.append(what)


def on_end(what: Callable[[Run], None]) -> None:
    """Have something done whenever a graph has been worked through, or has failed."""
    _on_end.append(what)


def find(block: Block) -> tuple[Run, Any] | None:
    """Return the run and the task that read a block at this moment; None where Dask works elsewhere."""
    found = at_work(block)
    return found[0] if found else _of_worker(block)


def at_work(block: Block) -> list[tuple[Run, Any]]:
    """Return the graphs worked through here, and their tasks, that read a block at this moment: it may belong to several."""
    return [(run, task) for run in list(_runs) for task in run.running() if _of(run, task, block)]


def end_own() -> None:
    """End the run of this thread of a worker, if there is one: its task has failed."""
    run: Run | None = getattr(_own, "run", None)
    _own.run = None
    if run is not None:
        _tell(run)


def _of_worker(block: Block) -> tuple[Run, Any] | None:
    """Return the task that this thread of a worker is at, and those that come next here: those of other bands' same chunk, and then
    the two that are taken up first for each thread.

    What waits may yet be given to a worker that is idle, and is then fetched twice: at the end of a graph, at most what is looked at here.
    """
    module = sys.modules.get("distributed.worker")
    key = None if module is None else getattr(module.thread_state, "key", None)
    if module is None or key is None:
        return None
    run: Run | None = getattr(_own, "run", None)
    # A run that knows of this task as one that waits knows nothing of what has come since.
    if run is None or run.running() != [key] or not _of(run, key, block):
        state = module.get_worker().state
        last, run = run, _run_at(state, key, block)
        _own.run = run
        if last is not None:
            waits = [claim.open and _waits(state, claim.following.task) for claim in last.claims]
            run.claims = [claim for claim, still in zip(last.claims, waits) if still]
            last.claims = [claim for claim, still in zip(last.claims, waits) if not still]
            _tell(last)
    return (run, key) if _of(run, key, block) else None


def _of(run: Run, task: Any, block: Block) -> bool:
    return any(read.block is block for read in run.reads(task))


def _waits(state: Any, key: Any) -> bool:
    """Whether a task is still to be done by this worker, or at work: what is fetched ahead for it is not in vain."""
    task = state.tasks.get(key)
    return task is not None and task.state in ("ready", "executing")


def _run_at(state: Any, key: Any, block: Block) -> Run:
    own = state.tasks.get(key)
    try:
        waiting = sorted(state.ready, key=lambda task: task.priority)
    except RuntimeError:
        waiting = []  # The worker's own thread has changed it at this very moment.
    graph = {} if own is None else {key: own.run_spec}
    beside: list[Any] = []
    later: list[Any] = []
    for task in waiting:
        reads = list(reads_of(task.run_spec))
        if any(_place(other.plan) == _place(block.plan) for other, _ in reads):
            beside.append(task)
        elif reads and len(later) < NEAR * state.nthreads:
            later.append(task)
    graph |= {task.key: task.run_spec for task in (*beside, *later)}
    coming = [task.key for task in (*beside, *later)]
    return Run(graph, {"running": [key], "ready": coming[::-1]})


def _place(plan: ReadPlan) -> tuple[Any, ...]:
    return plan.origin, plan.shape, plan.first_step


def exact(index: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what is equal for equal indices alone; the text of a long array leaves most of it out."""
    return tuple(_exact_one(item) for item in index)


def _exact_one(item: Any) -> Any:
    if isinstance(item, slice):
        return ("slice", item.start, item.stop, item.step)
    if isinstance(item, (int, np.integer)):
        return int(item)
    array = np.asarray(item)
    return (array.dtype.str, array.shape, array.tobytes())


def reads_of(
    node: Any, names: Mapping[Any, Any] | None = None
) -> Iterator[tuple[Block, tuple[Any, ...]]]:
    """Find the reads in a task, and in the tasks that Dask has fused into it; `names` are what those call each other by."""
    if not isinstance(node, Task):
        return
    if node.func is _execute_subgraph:
        inner, _, keys, *given = node.args
        within = {**inner, **{k: _value(v, names or {}) for k, v in zip(keys, given)}}
        for task in inner.values():
            yield from reads_of(task, within)
    elif node.func is getter and len(node.args) >= 2:
        block, index = (_value(arg, names or {}) for arg in node.args[:2])
        if isinstance(getattr(block, "plan", None), ReadPlan):
            yield block, index if isinstance(index, tuple) else (index,)


def _value(node: Any, names: Mapping[Any, Any]) -> Any:
    """Follow names to what they stand for, if that is known before anything has been computed."""
    for _ in range(len(names) + 1):
        if isinstance(node, TaskRef):
            node = names.get(node.key)
        elif isinstance(node, Alias):
            node = names.get(node.target)
        else:
            break
    return node.value if isinstance(node, DataNode) else node


def _start(graph: Any) -> None:
    for what in _on_start:
        what(graph)


def _begin(graph: Mapping[Any, Any], state: Mapping[str, Any]) -> None:
    _runs.append(Run(graph, state, next(_numbers)))


def _end(graph: Mapping[Any, Any], state: Mapping[str, Any], failed: bool) -> None:
    for run in [run for run in _runs if run.graph is graph]:
        _runs.remove(run)
        _tell(run)


def _tell(run: Run) -> None:
    for what in _on_end:
        what(run)


_CALLBACK = (_start, _begin, None, None, _end)
"""Dask's form of it: start, start with state, before a task, after a task, end."""

os.register_at_fork(after_in_child=_runs.clear)
