"""Mend the outputs of a pipeline's run: its Zarr store where it has holes, then what was made from
that store."""

from __future__ import annotations

import xarray as xr
from distributed import Client

from rasteret_dask.documents import validate
from rasteret_dask.errors import ArgumentError, CollectionError, PipelineError
from rasteret_dask.model import Ledger
from rasteret_dask.pipeline import outputs, record, steps
from rasteret_dask.pipeline.account import Progress
from rasteret_dask.pipeline.check import check
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.reading import open_cube
from rasteret_dask.pipeline.run import Work, is_whole_zarr, pinned_collection
from rasteret_dask.runs import regions
from rasteret_dask.runs.record import Record
from rasteret_dask.runs.regions import Repaired


def mend(
    noted: Record, *, client: Client | None, progress: Progress, allow_custom: bool
) -> Repaired:
    """Mend the outputs of a run that is done.

    Parameters
    ----------
    noted : Record
    client : distributed.Client or None
    progress : Progress
    allow_custom : bool
        Whether steps by import path may run: they are code.

    Returns
    -------
    Repaired

    Raises
    ------
    PipelineError
        The run is not done, or has no Zarr store of all its variables.
    ArgumentError
        What it was made from is no more: its collection, or a vector file.
    """
    pipeline = validate(Pipeline, noted.document["pipeline"])
    shape = check(pipeline, allow_custom=allow_custom)
    if not noted.finished:
        raise PipelineError(
            f"the run of {noted.url} is {noted.document['state']}, not done",
            hint="run it with --resume first; what failed is in its ledger",
        )
    whole = next((output for output in pipeline.outputs if is_whole_zarr(output)), None)
    if whole is None:
        raise PipelineError(
            "holes are mended in a Zarr store of all variables, and the run wrote none",
            hint=f"do it again whole: rasteret-dask run {noted.url}",
        )
    progress.stage("collection")
    vectors = record.vectors_of(noted)
    try:
        collection = pinned_collection(pipeline, vectors, noted)
    except CollectionError as error:
        raise ArgumentError(f"the run's collection is no more: {error.message}") from None
    package = noted.document["versions"]["rasteret-dask"]
    if (
        collection is None
        or record.digest_of(pipeline, collection, vectors, package) != noted.document["digest"]
    ):
        raise ArgumentError(
            "the run's collection or one of its vector files is another one by now",
            hint=f"do it again whole: rasteret-dask run {noted.url}",
        )

    def make(ledger: Ledger) -> tuple[xr.Dataset, xr.Dataset]:
        # From here on what was made from the store is behind it, until it is written anew.
        noted.save(stale=True)
        cube = open_cube(collection, pipeline, vectors, ledger)
        return cube, steps.apply(cube, pipeline.steps)

    url = outputs.url_of(whole)
    progress.stage(f"mend {url}")
    done = regions.mend(noted, url, make)
    if noted.document.get("stale", False):
        work = Work(pipeline, noted, client, progress, resume=False)
        work.write_rest(whole, shape.variables, collection.dates)
        noted.save(failures=done.failures, stale=False)
    return done
