"""Which regions of a result have to do with the holes of a cube."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, product
from typing import Any

import dask.array as da
import numpy as np
import pyarrow as pa
from dask._task_spec import DataNode, Task, _execute_subgraph
from dask.array.optimization import optimize
from dask.core import get_deps
from dask.highlevelgraph import HighLevelGraph
from dask.optimization import cull

from rasteret_dask.plan.chunks import ReadPlan
from rasteret_dask.plan.count import Box as Box3
from rasteret_dask.read.graph import BlockRead
from rasteret_dask.read.indices import cover

Index = tuple[int, ...]
Box = tuple[tuple[int, int], ...]


def boxes_of(rows: pa.Table, band: str) -> list[Box]:
    """Boxes (step, rows, columns) of the cube that a ledger's rows name for a band; each once."""
    columns = ("band", "step", "row0", "row1", "col0", "col1")
    found = {
        ((row["step"], row["step"] + 1), (row["row0"], row["row1"]), (row["col0"], row["col1"]))
        for row in rows.select(columns).to_pylist()
        if row["band"] == band
    }
    return sorted(found)


def touched(chunks: tuple[tuple[int, ...], ...], boxes: list[Box]) -> frozenset[Index]:
    """Indices of the chunks that boxes meet.

    Parameters
    ----------
    chunks : tuple of tuple of int
        As Dask has them.
    boxes : list of tuple of (int, int)
        Half-open, one pair for each dimension.
    """
    edges = [np.array(list(accumulate(sizes, initial=0))) for sizes in chunks]
    return frozenset(index for box in boxes for index in _met(edges, box))


def _met(edges: list[Any], box: Box) -> Iterator[Index]:
    if any(start >= stop for start, stop in box):
        return iter(())
    spans = [
        range(
            max(0, int(np.searchsorted(edge, start, side="right")) - 1),
            min(len(edge) - 1, int(np.searchsorted(edge, stop, side="left"))),
        )
        for edge, (start, stop) in zip(edges, box, strict=True)
    ]
    return product(*spans)


def depending(
    results: Mapping[str, da.Array], sources: Mapping[str, tuple[da.Array, frozenset[Index]]]
) -> dict[str, frozenset[Index]]:
    """Which chunks of results are computed from some chunks of sources, whatever lies between.

    Dask's graph says it, so any lazy computation will do, those with a neighbourhood too. The
    graph is materialised here: some 10 µs a task.

    Parameters
    ----------
    results : mapping of str to dask.array.Array
    sources : mapping of str to (dask.array.Array, chunks)

    Returns
    -------
    dict of str to frozenset of tuple of int
    """
    merged = HighLevelGraph.merge(*(array.dask for array in results.values()))
    _, dependents = get_deps(dict(merged))
    pending = [(array.name, *index) for array, chosen in sources.values() for index in chosen]
    seen = set(pending)
    while pending:
        fresh = set(dependents.get(pending.pop(), ())) - seen
        seen |= fresh
        pending.extend(fresh)
    return {
        name: frozenset(i for i in np.ndindex(*array.numblocks) if (array.name, *i) in seen)
        for name, array in results.items()
    }


def reads_of(
    results: Mapping[str, da.Array], wanted: Mapping[str, frozenset[Index]]
) -> Iterator[tuple[ReadPlan, Box3]]:
    """Reads that some chunks of results are computed from, with the box that is left of each after slices.

    Parameters
    ----------
    results : mapping of str to dask.array.Array
    wanted : mapping of str to frozenset of tuple of int
    """
    keys = [(results[name].name, *index) for name, chosen in wanted.items() for index in chosen]
    if not keys:
        return
    merged = HighLevelGraph.merge(*(results[name].dask for name in wanted))
    # The optimiser culls layers, and may leave whole ones that nothing wanted depends on.
    needed, _ = cull(dict(optimize(merged, keys)), keys)
    for task in tasks_of(needed.values()):
        arguments = task.args if isinstance(task, Task) else ()
        block, *rest = (a.value if isinstance(a, DataNode) else a for a in arguments[:2] or [None])
        if isinstance(block, BlockRead):
            index = rest[0] if rest and isinstance(rest[0], tuple) else (slice(None),) * 3
            (steps, rows, cols, _) = cover(index, block.shape)
            yield block.plan, (slice(*steps), slice(*rows), slice(*cols))


def tasks_of(values: Iterable[Any]) -> Iterator[Any]:
    """The tasks of a graph, those that the optimiser has put into one among them."""
    for value in values:
        if isinstance(value, Task) and value.func is _execute_subgraph:
            yield from tasks_of(value.args[0].values())
        else:
            yield value
