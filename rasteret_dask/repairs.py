"""Mend what was written with holes: by the record of a pipeline's run, or by that of a cube."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import dask
import pyarrow.compute as pc
import xarray as xr
from distributed import Client

from rasteret_dask import opening
from rasteret_dask.cluster.active import computing_on
from rasteret_dask.cluster.loss import noticing_loss
from rasteret_dask.collection import Collection
from rasteret_dask.errors import ArgumentError, PipelineError, RasteretWarning
from rasteret_dask.index import schema
from rasteret_dask.model import Ledger
from rasteret_dask.pipeline import mend as pipelines
from rasteret_dask.pipeline.account import Meter, Progress, Silence, current_client, watch
from rasteret_dask.runs import cube as cubes
from rasteret_dask.runs import record as runs
from rasteret_dask.runs import regions
from rasteret_dask.runs.record import Record
from rasteret_dask.runs.regions import Repaired, RepairPlan


def repair(
    run: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    compute: Callable[[xr.Dataset], xr.Dataset] | None = None,
    collection: Collection | None = None,
    client: Client | None = None,
    progress: Progress | None = None,
    allow_custom: bool = False,
    **arguments: Any,
) -> Repaired:
    """Read again what could not be read, and mend the store that was written without it.

    The regions of the store that have to do with the failed tiles (with the distance over which a mask is dilated and a resampling looks)
    are computed again from the snapshot that the run saw, and each is put in place of the old one in one operation. What still fails is
    in the ledger under a run of its own, from which the next repair starts; a repair without holes does nothing. One that was broken off
    is called again.

    Parameters
    ----------
    run : str or path-like
        The record of a pipeline's run (``out.zarr.run.json``), or of a cube (its attribute ``rasteret_record``).
    target : str or path-like, optional
        The Zarr store that the cube was written to, by ``to_zarr`` or `write_zarr`; a pipeline's is in its record.
    compute : callable, optional
        What was done to the cube before it was written, lazily: ``lambda ds: ds.median("time")``. A record holds no code.
    collection : Collection, optional
        What the cube was opened from, where that lies in no workspace.
    client : distributed.Client, optional
        Where to compute; the active one by default, else Dask's threads.
    progress : Progress, optional
        Told of stages and finished tasks.
    allow_custom : bool
        Whether a pipeline's steps by import path may run: they are code.
    **arguments
        Of ``get_xarray``, over what is recorded: ``storage=`` with more patience, or a function that was given as ``mosaic=``.

    Returns
    -------
    Repaired
        Regions, requests, and how many tiles still fail.

    Raises
    ------
    PipelineError
        There is no record, no ledger, or no store with regions.
    ArgumentError
        The store does not hold what the run makes, or what it was made from is no more.
    RunInterruptedError
        The cluster was lost: call it again.
    """
    noted = _noted(run)
    _check_version(noted)
    listener: Progress = Silence() if progress is None else progress
    where = current_client() if client is None else client
    with computing_on(client), noticing_loss(where):
        meter = Meter(where)
        with watch(where, listener):
            if noted.document["kind"] == runs.PIPELINE:
                _check_alone(target, compute, arguments)
                done = pipelines.mend(
                    noted, client=where, progress=listener, allow_custom=allow_custom
                )
            else:
                store = _store(target)
                make = _cube_again(noted, compute, collection, arguments)
                done = regions.mend(noted, store, make)
        spent = meter.read()
    return replace(done, requests=spent.requests, bytes=spent.bytes, retries=spent.retries)


def forecast(
    run: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    compute: Callable[[xr.Dataset], xr.Dataset] | None = None,
    collection: Collection | None = None,
    allow_custom: bool = False,
    **arguments: Any,
) -> RepairPlan:
    """Say what `repair` would do and read; nothing is written, and no pixel read.

    Parameters
    ----------
    run, target, compute, collection, allow_custom, **arguments
        As in `repair`.

    Returns
    -------
    RepairPlan
        Holes, regions, requests and bytes.

    Raises
    ------
    PipelineError, ArgumentError
        As `repair` raises them.
    """
    noted = _noted(run)
    if noted.document["kind"] == runs.PIPELINE:
        _check_alone(target, compute, arguments)
        return pipelines.forecast(noted, allow_custom=allow_custom)
    store = _store(target)
    make = _cube_again(noted, compute, collection, arguments)
    return regions.forecast(noted, store, make)


def _noted(run: str | os.PathLike[str]) -> Record:
    noted = runs.load(os.fspath(run))
    if noted is None:
        raise PipelineError(f"no record of a run at {os.fspath(run)}")
    return noted


def _check_alone(target: Any, compute: Any, arguments: Any) -> None:
    if target is not None or compute is not None or arguments:
        raise ArgumentError(
            "the record of a pipeline says all that is needed; it takes no target, compute or "
            "arguments"
        )


def _store(target: str | os.PathLike[str] | None) -> str:
    if target is None:
        raise ArgumentError(
            "target= names the store: a cube's record does not know where it was written"
        )
    return os.fspath(target)


def _check_version(noted: Record) -> None:
    """Warn where regions would be computed by another version than their neighbours."""
    there, here = noted.document["versions"]["rasteret-dask"], version("rasteret-dask")
    if there != here:
        warnings.warn(
            f"the run was made by version {there} of rasteret-dask, and {here} mends it: "
            "pixels may differ where a release says so",
            RasteretWarning,
            stacklevel=3,
        )


def _cube_again(
    noted: Record,
    compute: Callable[[xr.Dataset], xr.Dataset] | None,
    collection: Collection | None,
    more: dict[str, Any],
) -> regions.Make:
    """How the cube of a record is opened again, and what was made of it."""
    whole = _pinned(noted, collection)
    arguments = cubes.arguments_of(noted, more)
    # A cube that was computed at once was written from memory, in chunks of its own.
    arguments.setdefault("chunks", "auto")

    def make(ledger: Ledger) -> tuple[xr.Dataset, xr.Dataset]:
        with dask.config.set({"array.chunk-size": noted.document["chunk_size"]}):
            cube = whole.get_xarray(**arguments, on_error="record", ledger=ledger)
        return cube, cube if compute is None else compute(cube)

    return make


def _pinned(noted: Record, given: Collection | None) -> Collection:
    """The items that the cube was made of, as they were.

    Raises
    ------
    ArgumentError
        They are not to be had.
    """
    said = noted.document["collection"]
    pinned = said["snapshot"]
    if given is None and (said["url"] is None or "commit" not in pinned):
        raise ArgumentError(
            "the cube's collection lies in no workspace", hint="hand it over: collection="
        )
    found = opening.load(said["url"], snapshot=pinned["commit"]) if given is None else given
    ids = said.get("ids")
    if "commit" not in pinned:
        same = runs.ids_of(found) == pinned["items"]
    else:  # one that was handed over may be a copy
        same = found.commit is None or runs.snapshot_of(found) == pinned
    if ids is not None:
        found = found.where(pc.field(schema.ID).isin(ids))
    if not same or len(found) != said["items"]:
        raise ArgumentError(
            f"the collection {found.name!r} is not that of the run",
            hint="collection= must be the one that the cube was opened from",
        )
    return found
