"""Mend the outputs of a pipeline's run: its Zarr store where it has holes, then what was made from
that store."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr
from distributed import Client

from rasteret_dask.collection import Collection
from rasteret_dask.documents import validate
from rasteret_dask.errors import ArgumentError, CollectionError, PipelineError
from rasteret_dask.model import Ledger
from rasteret_dask.pipeline import outputs, record, steps
from rasteret_dask.pipeline.account import Progress
from rasteret_dask.pipeline.check import check
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.reading import Vectors, open_cube
from rasteret_dask.pipeline.results import Output
from rasteret_dask.pipeline.run import Work, pinned_collection
from rasteret_dask.pipeline.shape import Shape
from rasteret_dask.runs import regions
from rasteret_dask.runs.alive import standing
from rasteret_dask.runs.record import Record
from rasteret_dask.runs.regions import Repaired, RepairPlan


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """A run that is done, and how to make again what is in its store."""

    noted: Record
    pipeline: Pipeline
    shape: Shape
    whole: Output
    collection: Collection
    vectors: Vectors

    @property
    def url(self) -> str:
        return outputs.url_of(self.whole)

    def make(self, ledger: Ledger) -> tuple[xr.Dataset, xr.Dataset]:
        cube = open_cube(self.collection, self.pipeline, self.vectors, ledger)
        return cube, steps.apply(cube, self.pipeline.steps)


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
    progress.stage("collection")
    case = _case(noted, allow_custom)

    def make(ledger: Ledger) -> tuple[xr.Dataset, xr.Dataset]:
        # From here on what was made from the store is behind it, until it is written anew.
        noted.save(stale=True)
        return case.make(ledger)

    progress.stage(f"mend {case.url}")
    done = regions.mend(noted, case.url, make)
    if noted.document.get("stale", False):
        work = Work(case.pipeline, noted, client, progress, resume=False)
        work.write_rest(case.whole, case.shape.variables, case.collection.dates)
        noted.save(failures=done.failures, stale=False)
    return done


def forecast(noted: Record, *, allow_custom: bool) -> RepairPlan:
    """What `mend` would do, and what that reads; nothing is written.

    Raises
    ------
    PipelineError, ArgumentError
        As `mend` raises them.
    """
    case = _case(noted, allow_custom)
    return regions.forecast(noted, case.url, case.make)


def _case(noted: Record, allow_custom: bool) -> _Case:
    pipeline = validate(Pipeline, noted.document["pipeline"])
    shape = check(pipeline, allow_custom=allow_custom)
    if not noted.finished:
        raise PipelineError(
            f"the run of {noted.url} is {standing(noted.document)[0]}, not done",
            hint="run it with --resume first; what failed is in its ledger",
        )
    whole = next((output for output in pipeline.outputs if outputs.is_whole_zarr(output)), None)
    if whole is None:
        raise PipelineError(
            "holes are mended in a Zarr store of all variables, and the run wrote none",
            hint=f"do it again whole: rasteret-dask run {noted.url}",
        )
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
    return _Case(noted, pipeline, shape, whole, collection, vectors)
