"""Holes of a run, and the regions of a store that are computed anew for them.

Regions are put one by one, each whole; markers beside the store say which, so that a repair that
was broken off goes on. What fails again goes into a ledger run of its own, and the record says
which run the next repair starts from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import xarray as xr

from rasteret_dask.errors import PipelineError
from rasteret_dask.model import Ledger
from rasteret_dask.plan.count import count_reads
from rasteret_dask.read.concerned import Index, boxes_of, depending, reads_of, touched
from rasteret_dask.read.ledger import new_run, read_ledger
from rasteret_dask.runs.record import Record, now, placed
from rasteret_dask.write.patch import Target, beside, open_target, patch
from rasteret_dask.write.regions import Journal, sweep

Make = Callable[[Ledger], tuple[xr.Dataset, xr.Dataset]]
"""Gives the lazy cube again, writing what fails into this ledger, and what was computed from it."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did.

    Parameters
    ----------
    record, target : str
        The run's record, and the store.
    holes : int
        Rows of the ledger that it started from.
    regions, computed : int
        Regions that have to do with them, and those that were computed now.
    failures : int
        Tiles that still cannot be had, each with its row in the ledger.
    ledger, run : str
        Where those rows are: `rasteret_dask.read.ledger.read_ledger`.
    requests, bytes, retries : int
        Of rasters, over all processes.
    """

    record: str
    target: str
    holes: int
    regions: int
    computed: int
    failures: int
    ledger: str
    run: str
    requests: int = 0
    bytes: int = 0
    retries: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What a repair would do.

    Parameters
    ----------
    record, target : str
        The run's record, and the store.
    holes : int
        Rows of the ledger that it would start from.
    regions : int
        Regions that have to do with them.
    requests, bytes : int
        Of rasters, for all of these regions; what an earlier attempt has put already is not taken off.
    """

    record: str
    target: str
    holes: int = 0
    regions: int = 0
    requests: int = 0
    bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        return asdict(self)


def forecast(record: Record, target: str, make: Make) -> RepairPlan:
    """What `mend` would do: nothing is written, and no pixel read.

    Parameters
    ----------
    record, target, make
        As in `mend`.

    Raises
    ------
    PipelineError, ArgumentError
        As `mend` raises them.
    """
    first, source, _ = _start(record, target)
    rows = read_ledger(first.url, source)
    if not len(rows):
        return RepairPlan(record.url, target)
    cube, dataset = make(new_run(first.url))
    found = open_target(target, dataset)
    wanted = concerned(rows, cube, dataset, found)
    cost = count_reads(reads_of(found.arrays, wanted))
    count = len(frozenset().union(*wanted.values()))
    return RepairPlan(record.url, target, len(rows), count, cost.requests, cost.bytes)


def _start(record: Record, target: str) -> tuple[Ledger, str, dict[str, Any]]:
    """The run's ledger, the ledger run that a repair starts from, and what was noted of the last one."""
    first = record.ledger
    if first is None:
        raise PipelineError(
            f"the run of {record.url} kept no ledger: it has no holes",
            hint="on_error='record' and ledger= keep one",
        )
    before = record.document.get("repairs", {}).get(placed(target), {})
    source = before.get("run" if before.get("state") == "done" else "source", first.run)
    return first, str(source), before


def mend(record: Record, target: str, make: Make) -> Repaired:
    """Compute the regions of a store that have holes, and put them in place of those.

    Parameters
    ----------
    record : Record
        Of the run that wrote the store; it is told what was done.
    target : str
        A Zarr store.
    make : callable

    Returns
    -------
    Repaired

    Raises
    ------
    PipelineError
        The run has no ledger.
    ArgumentError
        The store does not hold what the run makes.
    """
    first, source, before = _start(record, target)
    key = placed(target)
    journal = Journal(beside(target))
    rows = read_ledger(first.url, source)
    if not len(rows):
        journal.end()  # of a repair that was killed when all was done
        return Repaired(record.url, target, 0, 0, 0, 0, first.url, source)
    # One that was broken off goes on under its own name: its markers and its rows are under that.
    ledger = new_run(first.url)
    if before.get("state") == "begun":
        ledger = Ledger(first.url, before["run"])
    cube, dataset = make(ledger)
    found = open_target(target, dataset)
    wanted = concerned(rows, cube, dataset, found)
    note = {"source": source, "run": ledger.run, "state": "begun", "started": now()}
    _save(record, key, note)
    computed = patch(found, wanted, journal, ledger.run)
    if before.get("state") == "begun":  # and its process may have been killed at a region
        sweep(found.store)
    failures = len(read_ledger(ledger.url, ledger.run))
    regions = len(frozenset().union(*wanted.values()))
    counts = {"regions": regions, "failures": failures}
    _save(record, key, {**note, **counts, "state": "done", "ended": now()})
    journal.end()
    return Repaired(
        record.url, target, len(rows), regions, computed, failures, ledger.url, ledger.run
    )


def _save(record: Record, key: str, note: dict[str, Any]) -> None:
    record.save(repairs={**record.document.get("repairs", {}), key: note})


def concerned(
    rows: pa.Table, cube: xr.Dataset, dataset: xr.Dataset, target: Target
) -> dict[str, frozenset[Index]]:
    """Regions of each variable of a store that holes of a cube have to do with.

    Parameters
    ----------
    rows : pyarrow.Table
        Of the ledger.
    cube : Dataset
        What the boxes of the rows are indices of.
    dataset : Dataset
        What was computed from it.
    target : Target
        Where that was written.
    """
    boxes = {str(band): boxes_of(rows, str(band)) for band in cube.data_vars}
    # A band that was written as it is: its own boxes say it, to the shard.
    plain = {
        name
        for name, array in target.arrays.items()
        if name in boxes
        and dataset[name].dims == cube[name].dims
        and dataset[name].data.name == cube[name].data.name
        and array.shape == cube[name].shape
    }
    found = {name: touched(target.arrays[name].chunks, boxes[name]) for name in plain}
    others = {name: array for name, array in target.arrays.items() if name not in plain}
    if others:
        sources = {
            band: (cube[band].data, touched(cube[band].data.chunks, boxes[band])) for band in boxes
        }
        found |= depending(others, sources)
    return found
