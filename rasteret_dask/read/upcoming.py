"""What this process reads next, by the word of Dask's own scheduler.

When Dask works through a graph in this process (threads, or the calling thread alone), it tells whoever has asked
(:class:`dask.callbacks.Callback`) and hands over the graph and its state: which tasks are at work, and which are ready, in the order in
which they will be taken. So reads that come next are known with their very index, and nothing is guessed at. On a worker of a cluster
nobody tells; see :mod:`rasteret_dask.read.siblings`.

State: ``_runs`` holds the graphs that are being worked through in this process, from Dask's start to its end; this module owns it. A
forked child has none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from dask._task_spec import Alias, DataNode, Task, TaskRef, _execute_subgraph
from dask.array.core import getter
from dask.callbacks import Callback

from rasteret_dask.plan.chunks import ReadPlan

FAR = 64
"""Tasks that are looked at: as many as one host may be asked at once by default, if each has a single tile."""


class Block(Protocol):
    """A read of one band of one chunk (:class:`~rasteret_dask.read.graph.BlockRead`)."""

    plan: ReadPlan
    seen: set[Any]
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
    """A graph that Dask works through.

    Parameters
    ----------
    graph : mapping
        Tasks by key.
    state : mapping
        Dask's own account, which its thread changes as tasks begin and end.

    Attributes
    ----------
    claims : list
        For :mod:`~rasteret_dask.read.siblings`: what is fetched ahead.
    """

    def __init__(self, graph: Mapping[Any, Any], state: Mapping[str, Any]) -> None:
        self.graph = graph
        self.claims: list[Any] = []
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

    def reads(self, task: Any) -> tuple[Next, ...]:
        """What a task reads."""
        found = self._known.get(task)
        if found is None:
            node = self.graph.get(task)
            reads = [Next(task, block, index, exact(index)) for block, index in _reads(node)]
            found = self._known[task] = tuple(reads)
        return found


_runs: list[Run] = []
_on_end: list[Callable[[Run], None]] = []


def watch() -> None:
    """Ask Dask to tell of the graphs that it works through in this process; asking again changes nothing."""
    Callback.active.add(_CALLBACK)


def on_end(what: Callable[[Run], None]) -> None:
    """Have something done whenever a graph has been worked through, or has failed."""
    _on_end.append(what)


def find(block: Block) -> tuple[Run, Any] | None:
    """Return the run and the task that read a block at this moment; None where Dask works elsewhere."""
    for run in list(_runs):
        for task in run.running():
            if any(read.block is block for read in run.reads(task)):
                return run, task
    return None


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


def _reads(
    node: Any, names: Mapping[Any, Any] | None = None
) -> Iterator[tuple[Block, tuple[Any, ...]]]:
    """Find the reads in a task, and in the tasks that Dask has fused into it; `names` are what those call each other by."""
    if not isinstance(node, Task):
        return
    if node.func is _execute_subgraph:
        inner, _, keys, *given = node.args
        within = {**inner, **{k: _value(v, names or {}) for k, v in zip(keys, given)}}
        for task in inner.values():
            yield from _reads(task, within)
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


def _begin(graph: Mapping[Any, Any], state: Mapping[str, Any]) -> None:
    _runs.append(Run(graph, state))


def _end(graph: Mapping[Any, Any], state: Mapping[str, Any], failed: bool) -> None:
    for run in [run for run in _runs if run.graph is graph]:
        _runs.remove(run)
        for what in _on_end:
            what(run)


_CALLBACK = (None, _begin, None, None, _end)
"""Dask's form of it: start, start with state, before a task, after a task, end."""

os.register_at_fork(after_in_child=_runs.clear)
