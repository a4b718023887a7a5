"""Run a pipeline: collection → cube → steps → outputs, every pixel read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import geopandas
import xarray as xr
from distributed import Client, wait
from distributed.comm import CommClosedError

from rasteret_dask import api
from rasteret_dask.cluster.active import computing_on, slot_given_back
from rasteret_dask.cluster.loss import noticing_loss
from rasteret_dask.collection import Collection
from rasteret_dask.errors import CollectionError, ConfigError, PipelineError, RasteretError
from rasteret_dask.pipeline import outputs, record, steps, tables
from rasteret_dask.pipeline.account import (
    Meter,
    Progress,
    RunAccount,
    Silence,
    Stopwatch,
    current_client,
    watch,
)
from rasteret_dask.pipeline.check import check
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.reading import Vectors, open_collection, open_cube, open_vectors
from rasteret_dask.pipeline.reading import explain as read_cost
from rasteret_dask.pipeline.results import Output, StacOutput
from rasteret_dask.read.ledger import new_run, read_ledger
from rasteret_dask.runs import record as runs
from rasteret_dask.runs.alive import standing
from rasteret_dask.runs.record import Record
from rasteret_dask.storage.ask import ask, reason_of
from rasteret_dask.storage.settings import named
from rasteret_dask.write.shards import OF_ARRAYS

# A result of at most so many bytes is held in memory while its outputs are written.
_SMALL = 512 * 2**20
_NO_COUNTERS = ("pipeline", "outputs", "record", "reused", "failures")


def run(
    pipeline: Pipeline,
    *,
    client: Client | None = None,
    progress: Progress | None = None,
    resume: bool = False,
    allow_custom: bool = False,
    area: geopandas.GeoDataFrame | None = None,
) -> RunAccount:
    """Run a pipeline to its end.

    Parameters
    ----------
    pipeline : Pipeline
        From `config.from_file` or `config.from_mapping`.
    client : distributed.Client, optional
        Where to compute. Without one: the active client if there is one, else Dask's threads.
    progress : Progress, optional
        Told of stages and finished tasks.
    resume : bool
        Go on with the same run that was broken off: what its record and its region markers call
        finished is not done again.
    allow_custom : bool
        Whether steps by import path may run: they are code.
    area : GeoDataFrame, optional
        Crop the cube to it, in place of ``cube.geometries``; by default what the pipeline was
        cropped to before, where it comes from the record of a unit.

    Returns
    -------
    RunAccount
        What it cost and where the outputs are.

    Raises
    ------
    ConfigError
        The pipeline makes no sense, or names a file that is not there; nothing has run.
    EmptySelectionError
        No item is left.
    RunInterruptedError
        The cluster was lost; with `resume` it goes on.
    RasteretError
        Whatever went wrong with a file, with its item, band and URL.
    """
    if pipeline.foreach is not None:
        raise ConfigError("a pipeline with foreach runs by foreach.run_each", path="foreach")
    check(pipeline, allow_custom=allow_custom)
    vectors = _vectors(pipeline, area)
    listener: Progress = Silence() if progress is None else progress
    where = current_client() if client is None else client
    clock, meter = Stopwatch(), Meter(where)
    with computing_on(client), noticing_loss(where), watch(where, listener) as count:
        listener.stage("collection")
        before = runs.load(record_url(pipeline))
        known = before if resume and before is not None and before.begun else None
        if known is not None and not known.finished:
            listener.stage("goes on with a run that is {}: {}".format(*standing(known.document)))
        try:
            collection, headers = _collection(pipeline, vectors, known)
            noted, finished = _record(pipeline, collection, vectors, known)
        except RasteretError as error:
            if known is None:  # whoever looks for the run finds why there is none
                area = _own_area(pipeline, vectors)
                record.unbegun(record_url(pipeline), pipeline, error, area)
            raise
        if not finished:
            with runs.Ending(noted), noticing_loss(where):
                Work(pipeline, noted, where, listener, resume).do(collection, vectors)
                runs.end(noted, "done", failures=_failures(noted))
    with noticing_loss(where):
        spent = meter.read()
    account = RunAccount(
        pipeline=pipeline.name,
        items=len(collection),
        headers=headers,
        requests=spent.requests,
        bytes=spent.bytes,
        retries=spent.retries,
        tasks=count.tasks,
        seconds=clock.read(),
        outputs=tuple(outputs.url_of(output) for output in pipeline.outputs),
        regions=_sum(noted, "regions"),
        computed=0 if finished else _sum(noted, "computed"),
        record=noted.url,
        reused=finished,
        failures=noted.document.get("failures", 0),
    )
    if not finished:
        counters = {k: v for k, v in account.as_dict().items() if k not in _NO_COUNTERS}
        noted.save(counters=counters)
    return account


def _sum(noted: Record, key: str) -> int:
    return sum(output.get(key, 0) for output in noted.document["outputs"])


# --- before anything is read ---------------------------------------------------------------------
def explain(
    pipeline: Pipeline, *, area: geopandas.GeoDataFrame | None = None, allow_custom: bool = False
) -> dict[str, Any]:
    """What a run would do and cost; the collection is built for it if it is not there.

    Parameters
    ----------
    pipeline : Pipeline
    area : GeoDataFrame, optional
        As in `run`.
    allow_custom : bool

    Returns
    -------
    dict
        Plain values: items, requests, bytes, tasks, the cost of every band, variables and outputs.
    """
    shape = check(pipeline, allow_custom=allow_custom)
    vectors = _vectors(pipeline, area)
    collection, headers = open_collection(pipeline.collection, vectors)
    cost = read_cost(collection, pipeline, vectors)
    return {
        "pipeline": pipeline.name,
        "items": len(collection),
        "headers": headers,
        "requests": cost.requests,
        "bytes": cost.bytes,
        "tasks": cost.total.tasks,
        "used_share": round(cost.used_share, 4),
        "bands": cost.to_rows(),
        "steps": [next(iter(step.model_dump())) for step in pipeline.steps],
        "variables": list(shape.variables),
        "outputs": [outputs.url_of(output) for output in pipeline.outputs],
        "record": record_url(pipeline),
    }


# --- record --------------------------------------------------------------------------------------
def record_url(pipeline: Pipeline) -> str:
    """Where the record of a run lies: as said, else beside the first output."""
    return pipeline.record or f"{outputs.url_of(pipeline.outputs[0]).rstrip('/')}.run.json"


def _vectors(pipeline: Pipeline, area: geopandas.GeoDataFrame | None) -> Vectors:
    return open_vectors(pipeline, record.area_of(pipeline.area) if area is None else area)


def pinned_collection(pipeline: Pipeline, vectors: Vectors, before: Record) -> Collection | None:
    """The collection after its subset as a run saw it; None where it lay in no workspace.

    Raises
    ------
    CollectionError
        It is gone.
    """
    said = before.document["collection"]
    number = said["snapshot"].get("commit")
    if said["url"] is None or number is None:
        return None
    whole = api.load(said["url"], snapshot=number, storage=named(pipeline.collection.storage))
    return open_collection(pipeline.collection, vectors, whole)[0]


def _collection(
    pipeline: Pipeline, vectors: Vectors, before: Record | None
) -> tuple[Collection, int]:
    """The collection after its subset, and the headers read for it; that of a run which goes on is
    what it was, whatever has been appended since."""
    if before is not None and not before.finished:
        try:
            found = pinned_collection(pipeline, vectors, before)
        except CollectionError:  # built anew meanwhile: the run begins anew as well
            found = None
        if found is not None and _continues(pipeline, found, vectors, before):
            return found, 0
    return open_collection(pipeline.collection, vectors)


def _continues(
    pipeline: Pipeline, collection: Collection, vectors: Vectors, before: Record
) -> bool:
    return bool(before.document["digest"] == record.digest_of(pipeline, collection, vectors))


def _record(
    pipeline: Pipeline, collection: Collection, vectors: Vectors, before: Record | None
) -> tuple[Record, bool]:
    """The record of this run, and whether there is nothing left to do."""
    url = record_url(pipeline)
    if before is not None and (
        not _continues(pipeline, collection, vectors, before) or record.lost_of(before, pipeline)
    ):
        before = None
    written = [] if before is None else record.kept_of(before, pipeline)
    if before is not None and before.finished and len(written) == len(pipeline.outputs):
        return before, True
    ledger = None
    if pipeline.cube.ledger is not None:
        # One that goes on keeps its ledger: regions that are done have their holes in it.
        kept = None if before is None else before.ledger
        ledger = kept or new_run(pipeline.cube.ledger)
    digest = record.digest_of(pipeline, collection, vectors)
    noted = record.begin(
        url,
        pipeline,
        collection,
        digest,
        ledger=ledger,
        written=written,
        area=_own_area(pipeline, vectors),
        # They say where the holes are now.
        repairs=None if before is None else before.document.get("repairs"),
    )
    return noted, False


def _own_area(pipeline: Pipeline, vectors: Vectors) -> geopandas.GeoDataFrame | None:
    """What the cube is cropped to, where no file of the pipeline says it."""
    return vectors.get("cube") if pipeline.cube.geometries is None else None


def _failures(noted: Record) -> int:
    """How many tiles could not be had, after a run that writes them down."""
    ledger = noted.open_holes
    return 0 if ledger is None else len(read_ledger(ledger.url, ledger.run))


# --- work ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Work:
    """Writes the outputs of one run, and says so in its record.

    Parameters
    ----------
    pipeline : Pipeline
    noted : Record
    client : distributed.Client or None
    progress : Progress
    resume : bool
    """

    pipeline: Pipeline
    noted: Record
    client: Client | None
    progress: Progress
    resume: bool

    def do(self, collection: Collection, vectors: Vectors) -> None:
        """Compute everything and write it."""
        self.progress.stage("cube")
        cube = open_cube(collection, self.pipeline, vectors, self.noted.ledger)
        dataset = steps.apply(cube, self.pipeline.steps)
        if "table" in vectors:
            self.progress.stage("table")
        last = self.pipeline.steps[-1] if self.pipeline.steps else None
        table = None if last is None else tables.make(last, dataset, vectors.get("table"))
        first, *rest = sorted(self.pipeline.outputs, key=_turn)
        lazy = table is None and not outputs.is_whole_zarr(first)
        left = [output for output in self.pipeline.outputs if not self._is_written(output)]
        if lazy and len(left) > 1 and dataset.nbytes <= _SMALL:
            self.progress.stage("compute")
            dataset = self._computed(dataset)
        dates = collection.dates
        result = outputs.Result(self.pipeline.name, dataset, table, dates, self.resume)
        self._write(first, result)
        if outputs.is_whole_zarr(first):
            self.write_rest(first, tuple(map(str, dataset.data_vars)), dates)
        else:
            for output in rest:
                self._write(output, result)

    def write_rest(self, first: Output, names: tuple[str, ...], dates: Any) -> None:
        """Write the other outputs, from a store that holds all variables; it knows no order of
        them."""
        url = outputs.url_of(first)
        rest = [one for one in sorted(self.pipeline.outputs, key=_turn) if one is not first]
        if all(map(self._is_written, rest)):
            return
        how: dict[str, Any] = {"chunks": {}, "mask_and_scale": False}
        try:
            stored: xr.Dataset = ask(xr.open_zarr, url, passes=OF_ARRAYS, **how)
        except OSError as error:
            reason = reason_of(error)
            said = f"{runs.unsigned(url)} could not be read back: {reason}"
            raise PipelineError(said) from None
        stored = stored[list(names)]
        if stored.nbytes <= _SMALL:
            stored = self._computed(stored)
        result = outputs.Result(self.pipeline.name, stored, None, dates, self.resume, {"zarr": url})
        for output in rest:
            self._write(output, result)

    def _is_written(self, output: Output) -> bool:
        """Whether the run that goes on has come so far: its record says so."""
        url = runs.unsigned(outputs.url_of(output))
        return self.resume and any(one["url"] == url for one in self.noted.document["outputs"])

    def _write(self, output: Output, result: outputs.Result) -> None:
        if self._is_written(output):
            outputs.note(output, result)
            return
        url = runs.unsigned(outputs.url_of(output))
        self.progress.stage(f"write {url}")
        try:
            said = runs.unsigned(outputs.write(output, result))
        except CommClosedError:  # an OSError, but not the output's
            raise
        except OSError as error:
            if self.client is not None and self.client.status != "running":
                raise
            reason = reason_of(error)
            raise PipelineError(f"{url} could not be written: {reason}") from error
        others = [one for one in self.noted.document["outputs"] if one["url"] != said["url"]]
        self.noted.save(outputs=[*others, said])

    def _computed(self, dataset: xr.Dataset) -> xr.Dataset:
        """Kept in memory, on the workers where there are some."""
        kept = dataset.persist()
        if self.client is not None:
            with slot_given_back():
                wait(kept)
        return kept


def _turn(output: Output) -> int:
    """Zarr first, because what is in it need not be computed again; descriptions last."""
    if isinstance(output, StacOutput):
        return 2
    return 0 if outputs.is_whole_zarr(output) else 1
